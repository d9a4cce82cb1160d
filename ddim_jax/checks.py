"""Checks of arguments: at once where values are not traced, with a sentence that names what is wrong."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

_SHOWN, _LAST = 60, 2**31 - 1


def known(value: Any) -> np.ndarray | None:
  """The value as a numpy array, or None where it is traced: what can be checked before a program runs."""
  return None if isinstance(value, jax.core.Tracer) else np.asarray(value)


def check_range(name: str, value: Any, low: float, high: float) -> None:
  """Raises ValueError where a value that is not traced is outside ``[low, high]``, NaN or no number."""
  check_number(name, value)
  values = known(value)
  if values is not None and not np.all((values >= low) & (values <= high)):
    allowed = f"at least {low:g}" if high == np.inf else f"in [{low:g}, {high:g}]"
    raise ValueError(f"{name} must be {allowed}, got {values}")


def check_eta(eta: Any) -> None:
  """Raises ValueError unless eta is one number, and in [0, 1] where it is not traced."""
  check_range("eta", eta, 0, 1)
  if np.ndim(eta):
    raise ValueError(f"eta must be one number, got shape {np.shape(eta)}")


def check_decreasing(ts: ArrayLike, T: int, name: str = "ts") -> None:
  """Raises ValueError unless levels that are not traced decrease strictly within [0, T], but for padding.

  Padding, the last level repeated (`ddim_jax.timesteps.pad`), is allowed.
  """
  levels = known(ts)
  if levels is None:
    return
  check_range(name, levels, 0, T)
  change = np.diff(levels)
  if np.any((change >= 0) & (levels[1:] != levels[-1])) or np.any(change > 0) or not np.any(change < 0):
    raise ValueError(f"{name} must decrease strictly, got {levels.tolist()}")


def finite_vector(name: str, values: ArrayLike) -> np.ndarray:
  """The values in float64; ValueError unless they are a non-empty vector of finite numbers."""
  found: np.ndarray = np.asarray(values)
  if jnp.issubdtype(found.dtype, jnp.floating) or jnp.issubdtype(found.dtype, jnp.integer):
    found = found.astype(np.float64)
    if found.ndim == 1 and found.size and np.all(np.isfinite(found)):
      return found
  raise ValueError(f"{name} must be a non-empty vector of finite numbers, got {found}")


def positive_integer(name: str, value: Any) -> int:
  """The value as an int; ValueError unless it is a positive integer of 32 bits, as levels are."""
  if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
    raise ValueError(f"{name} must be a positive integer, got {value!r}")
  if value > _LAST:
    raise ValueError(f"{name} must be at most {_LAST:,}, got {repr(value)[:_SHOWN]}")
  return int(value)


def check_T(T: Any) -> int:
  """The number of levels as an int; ValueError unless it is a positive integer."""
  return positive_integer("T", T)


def check_floating(name: str, value: Any) -> None:
  """Raises ValueError unless an array, perhaps traced, is floating point: bytes would be of another scale."""
  array = value if hasattr(value, "dtype") else np.asarray(value)
  if not jnp.issubdtype(array.dtype, jnp.floating):
    raise ValueError(f"{name} must be floating point in data units, got {array.dtype}{array.shape}")


def check_number(name: str, value: Any) -> None:
  """Raises ValueError unless a value, perhaps traced, is integer or floating point."""
  kind = (value if hasattr(value, "dtype") else np.asarray(value)).dtype
  if not (jnp.issubdtype(kind, jnp.floating) or jnp.issubdtype(kind, jnp.integer)):
    raise ValueError(f"{name} must be a number, got {repr(value)[:_SHOWN]}")


def check_numbers(**numbers: Any) -> None:
  """Raises ValueError unless each is a number, as `check_number`; by their names."""
  for name, value in numbers.items():
    check_number(name, value)


def check_finite(name: str, value: Any) -> None:
  """Raises ValueError where a value that is not traced is NaN or infinite, or no number at all."""
  check_number(name, value)
  found = known(value)
  if found is not None and not np.all(np.isfinite(np.asarray(found, np.float64))):
    raise ValueError(f"{name} must be finite, got {value}")


def check_interval(interval: Any) -> None:
  """Raises ValueError unless it is a pair of numbers, rising or equal where they are not traced."""
  if not hasattr(interval, "__len__") or len(interval) != 2:
    raise ValueError(f"interval must be (low, high), got {interval}")
  for end in interval:
    check_number("interval", end)
  low, high = map(known, interval)
  if low is not None and high is not None and not np.all(low <= high):
    raise ValueError(f"interval must be (low, high) with low at most high, got {interval}")


def check_positive(name: str, value: Any) -> None:
  """Raises ValueError where a value that is not traced is not above 0, or not finite."""
  check_finite(name, value)
  found = known(value)
  if found is not None and not np.all(found > 0):
    raise ValueError(f"{name} must be positive, got {value}")


def check_whole(name: str, value: Any, low: float, high: float) -> None:
  """Raises ValueError unless a value is of integers, and in ``[low, high]`` where it is not traced."""
  array = value if hasattr(value, "dtype") else np.asarray(value)
  if not jnp.issubdtype(array.dtype, jnp.integer):
    raise ValueError(f"{name} must be an integer, got {value!r}")
  check_range(name, value, low, high)
