"""Checkpoints through Orbax, complete in themselves.

Each step holds the state as a flat dictionary of arrays ("params.conv_in.kernel"), and beside it the
run's configuration and a CRC-32 of every array: Orbax restores a flipped byte without noticing, and
casts a wrong dtype. What is restored here has the names, shapes, dtypes and bytes that were saved.
"""

import contextlib
import json
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import flax.traverse_util
import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers

from ddim_jax import ranges
from ddim_jax.console import STDERR
from ddim_jax.packing import pack_like, unpack
from ddim_jax.places import for_checkpoints


class Restored(NamedTuple):
  """A step read back: ``arrays`` by name, and the ``config`` saved with them."""

  step: int
  arrays: dict[str, np.ndarray]
  config: dict[str, Any]


class DamagedError(ValueError):
  """A step that cannot be read, or not as it was written."""


class SaveError(OSError):
  """A step that could not be written; those saved before are untouched."""


@contextlib.contextmanager
def open_manager(
  directory: Path,
  *,
  keep: ranges.Positive = 2,
  keep_every: ranges.Positive | None = None,
  lowest_is_best: bool = True,
) -> Iterator[ocp.CheckpointManager]:
  """Opens or creates a folder of checkpoints; saves are asynchronous, and finished on leaving.

  Args:
    directory: The folder.
    keep: How many of the newest steps to keep, at least 1.
    keep_every: Steps divisible by this are kept for ever; None keeps no others.
    lowest_is_best: Of the steps saved with a metric, the one with the lowest (or highest) is kept too.

  Raises:
    ValueError: If ``keep`` or ``keep_every`` is not positive.
    SaveError: On leaving, if the last save failed.
  """
  ranges.check_all(open_manager, {"keep": keep, "keep_every": keep_every})
  policies: list[Any] = [
    checkpoint_managers.LatestN(keep),
    checkpoint_managers.BestN(
      get_metric_fn=lambda metrics: metrics["metric"],
      reverse=lowest_is_best,
      n=1,
      keep_checkpoints_without_metrics=False,
    ),
  ]
  if keep_every:
    policies.append(checkpoint_managers.EveryNSteps(keep_every))
  directory = for_checkpoints(directory, "directory").absolute()
  options = ocp.CheckpointManagerOptions(
    preservation_policy=checkpoint_managers.preservation_policy.AnyPreservationPolicy(policies),
    cleanup_tmp_directories=True,
  )
  manager = ocp.CheckpointManager(directory, options=options)
  try:
    yield manager
  except BaseException:
    try:
      with _saving(manager):
        manager.close()
    except SaveError as error:  # the error on its way out says more, but this must not be lost
      STDERR.write(f"warning: {error}\n")
    raise
  with _saving(manager):
    manager.wait_until_finished()
    manager.close()


@contextlib.contextmanager
def _saving(manager: ocp.CheckpointManager) -> Iterator[None]:
  """Turns whatever goes wrong in writing into a `SaveError` of one line."""
  try:
    yield
  except Exception as error:  # Orbax and TensorStore raise nearly any type, from any thread
    known = ("No space left on device", "Read-only file system", "Permission denied")
    reason = next((k for k in known if k in str(error)), f"{type(error).__name__}: {_first_line(error)}")
    raise SaveError(f"cannot save a checkpoint in {manager.directory}: {reason}") from error


def flatten(tree: Any) -> dict[str, Any]:
  """Leaves of any pytree by name, such as ``"opt_state.1.0.mu.conv_in.kernel"``."""
  leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
  return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _checksum(array: np.ndarray) -> int:
  return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _describe(arrays: dict[str, np.ndarray]) -> dict[str, list]:
  return {name: [str(a.dtype), list(a.shape), _checksum(a)] for name, a in arrays.items()}


def save(
  manager: ocp.CheckpointManager, step: int, state: Any, config: dict[str, Any], metric: float | None = None
) -> None:
  """Starts saving ``state``; returns once it has been copied, so that it may be donated at once.

  Args:
    manager: From `open_manager`.
    step: Number of updates behind this state.
    state: Any pytree of arrays, each whole on this process; `Packed` is saved as the tree it stands for.
    config: JSON values from which the program can rebuild the model.
    metric: By which the best step is kept, if there is one.

  Raises:
    SaveError: If this save cannot begin, or the one before it failed.
  """
  # A copy: on the CPU, device_get gives views of buffers that the next step donates.
  arrays = {name: np.array(leaf) for name, leaf in flatten(unpack(jax.device_get(state))).items()}
  meta = {"config": config, "arrays": _describe(arrays)}
  args = ocp.args.Composite(
    state=ocp.args.StandardSave(arrays),
    meta=ocp.args.JsonSave(meta | {"crc32": _meta_checksum(meta)}),
  )
  with _saving(manager):
    manager.save(step, args=args, metrics=None if metric is None else {"metric": metric})


def _meta_checksum(meta: dict[str, Any]) -> int:
  return zlib.crc32(json.dumps([meta["config"], meta["arrays"]], sort_keys=True).encode())


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
    raise DamagedError(f"step {step} cannot be read: {type(error).__name__}: {_first_line(error)}") from error
  if checksum != _meta_checksum(meta):
    raise DamagedError(f"step {step} is damaged: its configuration or checksums are not as saved")
  found = _describe(arrays)
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


def _first_line(error: Exception) -> str:
  return (str(error).splitlines() or [""])[0][:200]


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
        return manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]["config"]
  return None


def fill(template: Any, arrays: dict[str, np.ndarray]) -> Any:
  """A pytree like ``template`` with these arrays as its leaves, packed where it is.

  Raises:
    ValueError: If names, shapes or dtypes differ; lists them.
  """
  whole = unpack(template)
  expected = flatten(whole)
  wrong = [f"{name} is missing" for name in expected if name not in arrays]
  wrong += [f"{name} is not part of this model" for name in arrays if name not in expected]
  for name in expected.keys() & arrays.keys():
    want, got = expected[name], arrays[name]
    if (want.shape, want.dtype) != (got.shape, got.dtype):
      wrong.append(f"{name} is {got.dtype}{list(got.shape)}, expected {want.dtype}{list(want.shape)}")
  if wrong:
    raise ValueError("the checkpoint does not fit: " + "; ".join(sorted(wrong)[:8]))
  filled = jax.tree.unflatten(jax.tree.structure(whole), [arrays[name] for name in expected])
  return pack_like(template, filled)


def subtree(arrays: dict[str, np.ndarray], name: str) -> dict[str, Any]:
  """The nested dictionary of arrays saved below ``name``, for instance ``"ema"``."""
  prefix = name + "."
  below = {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
  return flax.traverse_util.unflatten_dict(below, sep=".")
