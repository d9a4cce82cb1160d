"""The kernel distance between two sets of features: an unbiased maximum mean discrepancy.

On the features of `inception` it is the KID of Binkowski et al., arXiv:1801.01401. Being unbiased, it can be
compared between different N, which the Frechet distance cannot.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from ddim_jax.checks import check_whole
from ddim_jax.metrics.value import Value, finite


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  found: np.ndarray = (x @ y.T / x.shape[1] + 1) ** 3
  return found


def squared_mmd(x: ArrayLike, y: ArrayLike) -> float:
  """The unbiased estimate for the kernel ``(x . y / D + 1)^3``; may be negative.

  Args:
    x: Features, ``f[M, D]``, M at least 2.
    y: Features, ``f[N, D]``, N at least 2.

  Raises:
    ValueError: If the shapes are others, or the features not floating point and finite.
  """
  x, y = finite("x", x, 2), finite("y", y, 2)
  if x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
    raise ValueError(f"x and y must be [M, D] and [N, D], M and N at least 2, got {x.shape} and {y.shape}")

  def within(z: np.ndarray) -> Any:
    k = _kernel(z, z)
    return (k.sum() - np.trace(k)) / (len(z) * (len(z) - 1))

  return float(within(x) + within(y) - 2 * _kernel(x, y).mean())


def subsets(features: ArrayLike, count: int = 100, size: int = 1000, seed: int = 0) -> Iterator[np.ndarray]:
  """``count`` random subsets of ``size`` features each (all of them, if there are fewer).

  Raises:
    ValueError: If a number is no integer, or too small.
  """
  check_whole("count", count, 1, np.inf)
  check_whole("size", size, 2, np.inf)
  check_whole("seed", seed, 0, np.inf)
  generator, features = np.random.default_rng(seed), np.asarray(features)
  for _ in range(count):
    yield features[generator.choice(len(features), min(size, len(features)), replace=False)]


def kernel_distance(a: Iterable[np.ndarray], b: Iterable[np.ndarray]) -> Value:
  """The mean of `squared_mmd` over pairs of blocks, with its standard deviation from block to block.

  Blocks of a stream need constant memory; `subsets` of features kept in memory are the usual choice.

  Args:
    a: Blocks of reference features, ``f[M, D]`` each.
    b: As many blocks of generated features; the number reported is the largest block's.

  Raises:
    ValueError: If there are no blocks, or not as many of both.
  """
  values, num = [], 0
  for x, y in zip(a, b, strict=True):
    values.append(squared_mmd(x, y))
    num = max(num, len(y))
  if not values:
    raise ValueError("a and b hold no blocks")
  spread = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
  return Value(float(np.mean(values)), num, spread if len(values) > 1 else None)
