"""Checks of arguments: at once where values are not traced, with a sentence that names what is wrong."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike


def known(value: Any) -> np.ndarray | None:
  """The value as a numpy array, or None where it is traced: what can be checked before a program runs."""
  return None if isinstance(value, jax.core.Tracer) else np.asarray(value)


def check_range(name: str, value: Any, low: float, high: float) -> None:
  """Raises ValueError where a value that is not traced is outside ``[low, high]`` or NaN."""
  values = known(value)
  if values is not None and not np.all((values >= low) & (values <= high)):
    allowed = f"at least {low:g}" if high == np.inf else f"in [{low:g}, {high:g}]"
    raise ValueError(f"{name} must be {allowed}, got {values}")


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
  values = np.asarray(values, np.float64)
  if values.ndim != 1 or not values.size or not np.all(np.isfinite(values)):
    raise ValueError(f"{name} must be a non-empty vector of finite numbers, got {values}")
  return values


def positive_integer(name: str, value: Any) -> int:
  """The value as an int; ValueError unless it is a positive integer."""
  if not isinstance(value, (int, np.integer)) or value < 1:
    raise ValueError(f"{name} must be a positive integer, got {value!r}")
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
    raise ValueError(f"{name} must be a number, got {value!r}")


def check_finite(name: str, value: Any) -> None:
  """Raises ValueError where a value that is not traced is NaN or infinite, or no number at all."""
  check_number(name, value)
  found = known(value)
  if found is not None and not np.all(np.isfinite(np.asarray(found, np.float64))):
    raise ValueError(f"{name} must be finite, got {value}")


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
