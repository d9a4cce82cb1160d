r"""The Frechet distance between two sets of features, each taken as a normal distribution.

.. math:: d^2 = |\mu_a - \mu_b|^2 + \mathrm{tr}\,(A + B - 2 (A B)^{1/2})

On the features of `inception` it is the FID of Heusel et al., arXiv:1706.08500. It is biased upwards, the
more the fewer the images, so that values with different N cannot be compared.
"""

from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.typing import ArrayLike

from ddim_jax.metrics.value import Value, finite


class Moments(NamedTuple):
  """Statistics of features, in float64: constant memory for any number of images, and mergeable.

  Attributes:
    num: Number of images.
    mean: ``f64[D]``.
    scatter: Sum of the outer products of the deviations from the mean, ``f64[D, D]``.
  """

  num: int
  mean: np.ndarray
  scatter: np.ndarray

  @property
  def covariance(self) -> np.ndarray:
    """The unbiased covariance, ``f64[D, D]``; needs two images."""
    if self.num < 2:
      raise ValueError(f"a covariance needs at least 2 images, got {self.num}")
    return self.scatter / (self.num - 1)


def moments(features: ArrayLike) -> Moments:
  """Statistics of one batch of features, ``f[B, D]``.

  Raises:
    ValueError: If the features are not a non-empty matrix of finite numbers.
  """
  x = finite("features", features, 2)
  mean = x.mean(axis=0)
  return Moments(len(x), mean, (x - mean).T @ (x - mean))


def merge(a: Moments | None, b: Moments) -> Moments:
  """Statistics of the union of two sets; None is the empty set.

  Without cancellation: Chan, Golub, LeVeque. Updating formulae and a pairwise algorithm for computing
  sample variances, 1979.

  Raises:
    ValueError: If the numbers of features differ.
  """
  if a is None:
    return b
  if a.mean.shape != b.mean.shape:
    raise ValueError(f"statistics of {a.mean.size} and of {b.mean.size} features cannot be merged")
  count = a.num + b.num
  difference = b.mean - a.mean
  mean = a.mean + difference * (b.num / count)
  between = np.outer(difference, difference) * (a.num * b.num / count)
  return Moments(count, mean, a.scatter + b.scatter + between)


def merge_hosts(own: Moments) -> Moments:
  """Statistics over all processes, the same on each; call it on all of them."""
  if jax.process_count() == 1:
    return own
  # As bytes: JAX would round float64 to float32.
  flat = np.concatenate([[own.num], own.mean, own.scatter.ravel()]).view(np.uint8)
  gathered = np.asarray(multihost_utils.process_allgather(flat))
  total: Moments | None = None
  for row in gathered:
    values, size = np.ascontiguousarray(row).view(np.float64), own.mean.size
    part = Moments(int(values[0]), values[1 : 1 + size], values[1 + size :].reshape(size, size))
    total = merge(total, part)
  return own if total is None else total


def _factor(covariance: np.ndarray) -> np.ndarray:
  """``F: f64[D, rank]`` with ``F F^T`` the covariance; directions lost in rounding are left out."""
  values, vectors = np.linalg.eigh(covariance)
  kept = values > max(values[-1], 0) * len(values) * np.finfo(np.float64).eps
  found: np.ndarray = vectors[:, kept] * np.sqrt(values[kept])
  return found


def frechet_distance(a: Moments, b: Moments) -> Value:
  """The squared Frechet distance, in squared units of the features.

  The trace of the root of A B is the sum of the singular values of ``F_a^T F_b``: real and exact for
  covariances of any rank (fewer images than features), where the root of the product is neither.

  Args:
    a: Statistics of the reference.
    b: Statistics of the generated images, whose number is reported.

  Raises:
    ValueError: If the numbers of features differ, or there are fewer than two images.
  """
  if not (isinstance(a, Moments) and isinstance(b, Moments)):
    raise ValueError(  # noqa: TRY004
      "a and b must be Moments, which ddim_jax.metrics.moments makes of features, got"
      f" {type(a).__name__} and {type(b).__name__}"
    )
  if a.mean.shape != b.mean.shape:
    raise ValueError(f"a has {a.mean.size} features and b has {b.mean.size}")
  A, B = a.covariance, b.covariance
  product = _factor(A).T @ _factor(B)
  root = np.linalg.svd(product, compute_uv=False).sum() if product.size else 0.0
  distance = np.sum((a.mean - b.mean) ** 2) + np.trace(A) + np.trace(B) - 2 * root
  return Value(max(float(distance), 0.0), b.num)
