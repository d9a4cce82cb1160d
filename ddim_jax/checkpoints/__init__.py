"""Checkpoints through Orbax, complete in themselves.

Each step holds the state as a flat dictionary of arrays ("params.conv_in.kernel"), and beside it the
run's configuration and a CRC-32 of every array: Orbax restores a flipped byte without noticing, and
casts a wrong dtype. What is restored here has the names, shapes, dtypes and bytes that were saved.
"""

from ddim_jax.checkpoints.restoring import (
  DamagedError,
  Restored,
  newest_config,
  restore,
  restore_latest,
  restore_newest_sound,
  steps,
)
from ddim_jax.checkpoints.saving import SaveError, open_manager, save
from ddim_jax.checkpoints.trees import fill, flatten, subtree

__all__ = [
  "DamagedError",
  "Restored",
  "SaveError",
  "fill",
  "flatten",
  "newest_config",
  "open_manager",
  "restore",
  "restore_latest",
  "restore_newest_sound",
  "save",
  "steps",
  "subtree",
]
