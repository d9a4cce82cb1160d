"""A measured value, which never goes without the number of images behind it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
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


def finite(name: str, values: ArrayLike, ndim: int | None = None) -> np.ndarray:
  """The values in float64; of integers, such as pictures in place of their features, a ValueError.

  Args:
    name: What the argument is called.
    values: Floating point, ``[B, ...]``, at least one.
    ndim: Their rank; None takes any from 2 on.

  Raises:
    ValueError: If they are something else, or hold NaN or infinity.
  """
  if isinstance(values, np.ma.MaskedArray):
    raise ValueError(f"{name} must be without a mask, which would be ignored")  # noqa: TRY004
  array = values if isinstance(values, jax.Array) else np.asarray(values)
  fits = array.ndim >= 2 if ndim is None else array.ndim == ndim
  if not fits or not array.size or not jnp.issubdtype(array.dtype, jnp.floating):
    shape = {None: "[B, ...]", 2: "[B, D]"}[ndim]
    raise ValueError(f"{name} must be a non-empty floating-point {shape}, got {array.dtype}{array.shape}")
  wide = np.asarray(array, np.float64)
  if not np.all(np.isfinite(wide)):
    raise ValueError(f"{name} must be finite, got NaN or infinity")
  return wide


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
  a, b = finite("original", original), finite("reconstruction", reconstruction)
  if a.shape != b.shape:
    raise ValueError(f"original and reconstruction must be batches of one shape, got {a.shape} and {b.shape}")
  return Value(float(np.mean((a - b) ** 2) / 4), len(a))
