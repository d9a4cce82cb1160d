"""Reading checkpoints: what is given back has the names, shapes, dtypes and bytes that were saved."""

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from ddim_jax.checkpoints.trees import described, first_line, meta_checksum


class Restored(NamedTuple):
  """A step read back: ``arrays`` by name, and the ``config`` saved with them."""

  step: int
  arrays: dict[str, np.ndarray]
  config: dict[str, Any]


class DamagedError(ValueError):
  """A step that cannot be read, or not as it was written."""


def restore(manager: ocp.CheckpointManager, step: int) -> Restored:
  """Reads one step and checks every array and the configuration against what was saved.

  Raises:
    DamagedError: If anything is missing, unreadable or changed; names what.
  """
  args = ocp.args.Composite(state=ocp.args.StandardRestore(), meta=ocp.args.JsonRestore())
  try:
    items = manager.restore(step, args=args)
    arrays = {name: np.asarray(array) for name, array in items["state"].items()}
    meta = items["meta"]
    config, expected, checksum = meta["config"], meta["arrays"], meta["crc32"]
  except Exception as error:  # damage surfaces as nearly any type, plain Exception included
    raise DamagedError(f"step {step} cannot be read: {type(error).__name__}: {first_line(error)}") from error
  if checksum != meta_checksum(meta):
    raise DamagedError(f"step {step} is damaged: its configuration or checksums are not as saved")
  found = described(arrays)
  if wrong := sorted(n for n in expected.keys() | found.keys() if expected.get(n) != found.get(n)):
    raise DamagedError(f"step {step} is damaged: {len(wrong)} arrays are not as saved, such as {wrong[0]}")
  return Restored(step, arrays, config)


def restore_newest_sound(manager: ocp.CheckpointManager, report: Callable[[str], None]) -> Restored | None:
  """The newest step that is as it was written, or None in an empty folder.

  Damaged steps above it are reported and set aside, in a folder ``damaged`` beside this one: a step
  that exists could not be saved again when the run comes back to it. Nothing is deleted.

  Raises:
    DamagedError: If there are steps and none of them is sound; all stay where they are.
  """
  damaged: dict[int, DamagedError] = {}
  for step in sorted(manager.all_steps(), reverse=True):
    try:
      restored = restore(manager, step)
    except DamagedError as error:
      damaged[step] = error
      continue
    for above, reason in damaged.items():
      report(f"{reason}; going on from step {step}")
      _set_aside(manager, above)
    return restored
  if damaged:
    reasons = "; ".join(map(str, damaged.values()))
    raise DamagedError(f"none of the checkpoints in {manager.directory} is sound: {reasons}")
  return None


def _set_aside(manager: ocp.CheckpointManager, step: int) -> None:
  if jax.process_index() == 0:
    aside = Path(manager.directory).parent / "damaged"
    aside.mkdir(exist_ok=True)
    (Path(manager.directory) / str(step)).rename(aside / f"{step}-{time.time_ns()}")
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(f"set aside step {step}")
  manager.reload()


def steps(directory: Path) -> list[int]:
  """Steps saved in a folder, oldest first; none if the folder does not exist."""
  directory = Path(directory).absolute()
  if not directory.is_dir():
    return []
  with _reader(directory) as manager:
    return sorted(manager.all_steps())


def _reader(directory: Path) -> ocp.CheckpointManager:
  options = ocp.CheckpointManagerOptions(read_only=True, create=False, save_interval_steps=0)
  for _ in range(20):
    try:
      return ocp.CheckpointManager(directory, options=options)
    except FileNotFoundError:  # a run that is training deleted a step while the folder was being listed
      continue
  return ocp.CheckpointManager(directory, options=options)


def restore_latest(directory: Path, step: int | None = None) -> Restored:
  """The newest step of a folder, or the one asked for, for reading only.

  Raises:
    FileNotFoundError: If there is no checkpoint, or not that one.
    DamagedError: If it is damaged.
  """
  directory = Path(directory).absolute()
  if not directory.is_dir():
    raise FileNotFoundError(f"no checkpoints: {directory} does not exist")
  with _reader(directory) as manager:
    there = sorted(manager.all_steps())
    wanted = max(there, default=0) if step is None else step
    if wanted not in there:
      name = "any step" if step is None else f"step {step}"
      raise FileNotFoundError(f"no checkpoint of {name} in {directory}, which has {there}")
    return restore(manager, wanted)


def newest_config(directory: Path) -> dict[str, Any] | None:
  """What was saved beside the newest step whose configuration can be read; None if there is none."""
  directory = Path(directory).absolute()
  if not directory.is_dir():
    return None
  with _reader(directory) as manager:
    for step in sorted(manager.all_steps(), reverse=True):
      # Damage surfaces as nearly any type, plain Exception included; whoever restores the step reports it.
      with contextlib.suppress(Exception):
        found: dict[str, Any] | None = manager.restore(
          step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())
        )["meta"]["config"]
        return found
  return None
