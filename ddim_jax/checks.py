"""Checks of arguments: at once where values are not traced, with a sentence that names what is wrong."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ddim_jax.parameterisation import Prediction
from ddim_jax.schedules import Level, Schedule, check_range, known


def check_floating(name: str, value: Any) -> None:
  """Raises ValueError unless an array, perhaps traced, is floating point: bytes would be of another scale."""
  array = value if hasattr(value, "dtype") else np.asarray(value)
  if not jnp.issubdtype(array.dtype, jnp.floating):
    raise ValueError(f"{name} must be floating point in data units, got {array.dtype}{array.shape}")


def check_arrays(schedule: Any, **arrays: Any) -> None:
  """Raises ValueError unless the first is a Schedule, and the others floating point of one shape."""
  check_schedule(schedule)
  for name, array in arrays.items():
    check_floating(name, array)
  if len({np.shape(array) for array in arrays.values()}) > 1:
    shapes = " and ".join(str(np.shape(array)) for array in arrays.values())
    raise ValueError(f"{' and '.join(arrays)} must have the same shape, got {shapes}")


def check_schedule(schedule: Any) -> None:
  """Raises ValueError unless it is a Schedule, perhaps of traced numbers."""
  if not isinstance(schedule, Schedule):
    raise ValueError(f"schedule must be a Schedule, got {type(schedule).__name__}")  # noqa: TRY004


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


def checked(denoise: Any, schedule: Any) -> Any:
  """The denoiser, which says so where it returns something else than a prediction.

  Raises:
    ValueError: If the arguments are something else, such as in another order.
  """
  check_schedule(schedule)
  hint = "; ddim_jax.as_denoiser makes one of a network"
  if isinstance(denoise, nn.Module) or not callable(denoise):
    kind = type(denoise).__name__
    raise ValueError(f"denoise must be a function (x_t, t) -> Prediction, got {kind}{hint}")  # noqa: TRY004

  def call(x_t: jax.Array, t: Level) -> Prediction:
    found = denoise(x_t, t)
    if not isinstance(found, Prediction):
      kind = "an array" if isinstance(found, jax.Array) else type(found).__name__
      raise ValueError(f"denoise must return a Prediction, got {kind}{hint}")  # noqa: TRY004
    return found

  return call
