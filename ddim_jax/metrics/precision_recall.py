"""Improved precision and recall: are samples like the data, and is all of the data among the samples?

Kynkaanniemi et al., arXiv:1904.06991. The manifold of a set is the union of balls around its features, each
reaching to its k-th nearest neighbour. Distances are float64, in blocks: memory grows with the features
kept, not with their square.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

from ddim_jax.metrics.value import Value, finite

_BLOCK = 1024


class PrecisionRecall(NamedTuple):
  """Both in [0, 1].

  Attributes:
    precision: Share of the samples that lie on the manifold of the reference.
    recall: Share of the reference that lies on the manifold of the samples.
  """

  precision: Value
  recall: Value


def _squared_distances(a: np.ndarray, b: np.ndarray) -> Iterator[np.ndarray]:
  """Squared distances of blocks of ``a`` to all of ``b``."""
  squares = np.sum(b * b, axis=1)
  for start in range(0, len(a), _BLOCK):
    block = a[start : start + _BLOCK]
    yield np.maximum(np.sum(block * block, axis=1)[:, None] + squares - 2 * block @ b.T, 0)


def _squared_radii(x: np.ndarray, k: int) -> np.ndarray:
  """To the k-th neighbour other than the point itself, whose distance of 0 is the smallest."""
  return np.concatenate([np.partition(d, k, axis=1)[:, k] for d in _squared_distances(x, x)])


def _covered(points: np.ndarray, centres: np.ndarray, squared_radii: np.ndarray) -> float:
  inside = [np.any(d <= squared_radii, axis=1) for d in _squared_distances(points, centres)]
  return float(np.mean(np.concatenate(inside)))


def precision_recall(reference: ArrayLike, generated: ArrayLike, k: int = 3) -> PrecisionRecall:
  """Precision and recall of generated features against reference features.

  Args:
    reference: ``f[M, D]``, M greater than k.
    generated: ``f[N, D]``, N greater than k; of about the size of the reference.
    k: Which nearest neighbour sets the radius, at least 1.

  Raises:
    ValueError: If shapes or k are others, or the features not floating point and finite.
  """
  a, b = finite("reference", reference, 2), finite("generated", generated, 2)
  if a.shape[1] != b.shape[1]:
    raise ValueError(f"reference and generated must be [M, D] and [N, D], got {a.shape} and {b.shape}")
  if not 1 <= k < min(len(a), len(b)):
    raise ValueError(f"k must be at least 1 and less than {min(len(a), len(b))} features, got {k}")
  centre = a.mean(axis=0)  # far from the origin, the squares would cancel
  a, b = a - centre, b - centre
  precision = Value(_covered(b, a, _squared_radii(a, k)), len(b))
  return PrecisionRecall(precision, Value(_covered(a, b, _squared_radii(b, k)), len(b)))
