"""Scalings: how the numbers a data set is stored in become the data a network sees, and back.

Data = (values - offset) / scale. Pictures become [-1, 1]; latents and features mean 0 and variance 1.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ddim_jax.checks import check_floating

Numbers = float | tuple[float, ...]
"""One for all channels, or one for each."""

_DEVIATIONS = 3
_FARTHEST = 2.0


class Scaling(NamedTuple):
  """An affine map from stored values to data; JSON can hold it (``Scaling(**json.loads(...))``).

  Attributes:
    dtype: Of the stored values, such as "uint8".
    offset: The value that becomes 0; for each channel (the last axis), or one for all.
    scale: The distance from it that becomes 1; likewise.
    bounded: Whether data lie in [-1, 1].
  """

  dtype: str
  offset: Numbers
  scale: Numbers
  bounded: bool

  def to_data(self, values: ArrayLike) -> jax.Array:
    """Stored values ``dtype[..., C]`` to data, ``f32[..., C]``. May be traced.

    Raises:
      ValueError: If the values are of another type, which would be of another scale.
    """
    values = values if isinstance(values, jax.Array) else np.asarray(values)
    if values.dtype != self.dtype:
      raise ValueError(f"values must be {self.dtype}, got {values.dtype}{values.shape}")
    offset, scale = (_spread(x, values.shape) for x in (self.offset, self.scale))
    return (jnp.asarray(values).astype(jnp.float32) - offset) / scale

  def check_data(self, name: str, data: np.ndarray) -> None:
    """Raises ValueError unless data are floating point, finite and, where they are bounded, about in [-1, 1].

    Bytes are far beyond it, samples that were not clipped a little.
    """
    check_floating(name, data)
    if not np.all(np.isfinite(data)) or (self.bounded and np.abs(data).max(initial=0) > _FARTHEST):
      limits = " and in [-1, 1]" if self.bounded else ""
      raise ValueError(f"{name} must be finite{limits}, got {data.min():g} to {data.max():g}")

  def to_values(self, data: ArrayLike) -> np.ndarray:
    """Data, floating point ``[..., C]``, to the stored values nearest to them, on the host.

    Data beyond [-1, 1] are clipped to it where data are bounded.

    Raises:
      ValueError: If the data are integers, or hold NaN or infinity.
    """
    data = np.asarray(data)
    if not jnp.issubdtype(data.dtype, jnp.floating):
      raise ValueError(f"data must be floating point in data units, got {data.dtype}{data.shape}")
    data = data.astype(np.float32)
    if not np.all(np.isfinite(data)):
      count = int(np.sum(~np.isfinite(data)))
      raise ValueError(f"data must be finite, got {count:,} NaN or infinite of {data.size:,} numbers")
    if self.bounded:
      data = np.clip(data, -1, 1)
    offset, scale = (_spread(x, data.shape) for x in (self.offset, self.scale))
    values = data * scale + offset
    if np.dtype(self.dtype).kind == "f":
      found: np.ndarray = values.astype(self.dtype)
      return found
    limits = np.iinfo(self.dtype)
    result: np.ndarray = np.clip(np.round(values), limits.min, limits.max).astype(self.dtype)
    return result

  def to_bytes(self, data: ArrayLike) -> np.ndarray:
    """Data as bytes to look at, ``u8[...]``: what has no limits, from -3 to 3 standard deviations."""
    return BYTES.to_values(np.asarray(data) if self.bounded else np.asarray(data) / _DEVIATIONS)

  def from_bytes(self, pictures: ArrayLike) -> jax.Array:
    """The way back, to rounding: ``u8[...]`` to data, ``f32[...]``."""
    return BYTES.to_data(pictures) * (1 if self.bounded else _DEVIATIONS)

  def __str__(self) -> str:
    offset, scale = np.asarray(self.offset), np.asarray(self.scale)
    if self.bounded:
      low, high = (_brief(x) for x in (offset - scale, offset + scale))
      return f"{low} to {high} ({self.dtype}) become -1 to 1"
    return f"mean {_brief(offset)} and deviation {_brief(scale)} ({self.dtype}) become 0 and 1"


def _brief(numbers: np.ndarray) -> str:
  low, high = f"{numbers.min():g}", f"{numbers.max():g}"
  return low if low == high else f"[{low} .. {high}]"


def _spread(numbers: Numbers, shape: tuple[int, ...]) -> np.ndarray:
  """As float32 of the rank of ``shape``, so that it multiplies arrays of that shape."""
  array = np.asarray(numbers, np.float32)
  if array.ndim and array.shape != shape[-1:]:
    raise ValueError(f"arrays must have {array.size} channels (last axis), got shape {shape}")
  return array.reshape((1,) * (len(shape) - array.ndim) + array.shape)


def from_limits(low: ArrayLike, high: ArrayLike, dtype: str) -> Scaling:
  """The scaling that makes ``low`` -1 and ``high`` 1.

  Args:
    low: Lowest value, a number or one for each channel.
    high: Highest value, likewise.
    dtype: Of the stored values.

  Raises:
    ValueError: If they are not finite, or ``low`` is not below ``high``.
  """
  low, high = np.broadcast_arrays(np.asarray(low, np.float64), np.asarray(high, np.float64))
  if low.ndim > 1 or not np.all(np.isfinite(low) & np.isfinite(high) & (low < high)):
    raise ValueError(f"values must be finite numbers (low, high) with low below high, got ({low}, {high})")
  return Scaling(str(np.dtype(dtype)), _plain((low + high) / 2), _plain((high - low) / 2), True)


def from_moments(parts: Iterable[np.ndarray], dtype: str) -> Scaling:
  """The scaling that gives each channel mean 0 and variance 1 over all parts of a data set, ``[B, ..., C]``.

  Raises:
    ValueError: If a channel is constant, or holds NaN or infinity; says which.
  """
  count, mean, squares = 0, np.zeros(()), np.zeros(())
  for part in parts:
    rows = np.asarray(part, np.float64).reshape(-1, part.shape[-1])
    if not np.all(finite := np.isfinite(rows).all(axis=0)):
      raise ValueError(f"values must be finite; channel {int(np.argmin(finite))} is not")
    delta = rows.mean(axis=0) - mean
    total = count + len(rows)
    squares = squares + rows.var(axis=0) * len(rows) + delta**2 * (count * len(rows) / total)
    mean, count = mean + delta * (len(rows) / total), total
  deviation = np.sqrt(squares / count)
  if np.any(constant := deviation <= 1e-12 * np.abs(mean)):
    raise ValueError(
      f"channel {int(np.argmax(constant))} is constant and cannot be standardised: leave it out"
    )
  return Scaling(str(np.dtype(dtype)), _plain(mean), _plain(deviation), False)


def from_json(values: dict[str, Any] | None) -> Scaling | None:
  """A scaling from what JSON has made of ``scaling._asdict()``; None stays None."""
  if values is None:
    return None
  plain = lambda x: tuple(x) if isinstance(x, list) else x
  return Scaling(values["dtype"], plain(values["offset"]), plain(values["scale"]), values["bounded"])


def unscaled(size: int) -> Scaling:
  """The scaling of vectors of so many numbers, ``f32[..., size]``, that leaves them as they are."""
  return Scaling("float32", (0.0,) * size, (1.0,) * size, False)


def _plain(numbers: np.ndarray) -> Numbers:
  return float(numbers) if numbers.ndim == 0 else tuple(float(x) for x in numbers)


BYTES = from_limits(0, 255, "uint8")


def from_uint8(images: ArrayLike) -> jax.Array:
  """``u8[...]`` in [0, 255] to ``f32[...]`` in [-1, 1]; of floating point, a ValueError."""
  return BYTES.to_data(images)


def to_uint8(images: ArrayLike) -> np.ndarray:
  """Floating point ``[...]`` in [-1, 1] (clipped to it) to the nearest ``u8[...]`` in [0, 255], on the host.

  Raises:
    ValueError: If the images are integers already, or hold NaN or infinity.
  """
  return BYTES.to_values(images)
