"""Vectors that a model is conditioned on, in the numbers of its data set."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from ddim_jax.scaling import Scaling

Condition = Sequence[Any] | np.ndarray | jax.Array
"""A vector of the numbers that a data set gives with each image, or one for each image."""


def size_of(scaling: Scaling | None) -> int:
  """Numbers in a condition, 0 for none."""
  return 0 if scaling is None else np.size(scaling.offset)


def vectors(condition: Condition | None, scaling: Scaling | None) -> Any:
  """Conditions standardised, ``f32[K]``, or ``f32[B, K]`` for one for each image; None stays None.

  Args:
    condition: In the numbers of the data set, perhaps traced.
    scaling: What they mean; None for a model without conditions.

  Raises:
    ValueError: If the model takes none, or these are not such, or not finite.
  """
  if condition is None:
    return None
  if scaling is None:
    raise ValueError("condition needs a model that was trained with conditions; this one was not")
  found: Any = condition
  if not isinstance(condition, jax.Array):
    found = np.asarray(condition, np.float32)
    if not np.all(np.isfinite(found)):
      raise ValueError(f"condition must be finite, got {found}")
  if found.ndim not in (1, 2) or found.shape[-1] != size_of(scaling):
    raise ValueError(f"condition must be [{size_of(scaling)}] or [B, the same], got {found.shape}")
  return scaling.to_data(found.astype(np.float32))
