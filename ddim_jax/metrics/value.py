"""A measured value, which never goes without the number of images behind it."""

from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike


class Value(NamedTuple):
  """A result; printed as ``12.3 +- 0.4 (N = 5,000)``.

  Attributes:
    value: The figure.
    num: Images it was measured on; of two sets of images, the generated one.
    error: Standard deviation over parts of the set, where there is one.
  """

  value: float
  num: int
  error: float | None = None

  def __str__(self) -> str:
    spread = "" if self.error is None else f" +- {self.error:.2g}"
    return f"{self.value:.4g}{spread} (N = {self.num:,})"


def reconstruction_error(original: ArrayLike, reconstruction: ArrayLike) -> Value:
  """The mean squared error per dimension of images scaled to [0, 1], as in table 2 of the paper.

  Args:
    original: Images in [-1, 1], ``f[B, ...]``.
    reconstruction: The same shape.

  Raises:
    ValueError: If the shapes differ, there are no images, or these are integers, NaN or infinite.

  References:
    Section 5.4 of Song, Meng, Ermon. Denoising Diffusion Implicit Models, arXiv:2010.02502.
  """
  if any(np.asarray(x).dtype.kind in "iub" for x in (original, reconstruction)):
    raise ValueError("original and reconstruction must be floating point in [-1, 1], got integers")
  a, b = (np.asarray(x, np.float64) for x in (original, reconstruction))
  if a.shape != b.shape or a.ndim < 2 or not len(a):
    raise ValueError(f"original and reconstruction must be batches of one shape, got {a.shape} and {b.shape}")
  if not (np.all(np.isfinite(a)) and np.all(np.isfinite(b))):
    raise ValueError("original and reconstruction must be finite, got NaN or infinity")
  return Value(float(np.mean((a - b) ** 2) / 4), len(a))
