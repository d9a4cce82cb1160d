"""Checkpoints through Orbax, complete in themselves.

Each step holds the state as a flat dictionary of arrays ("params.conv_in.kernel"), and beside it the
run's configuration and a CRC-32 of every array: Orbax restores a flipped byte without noticing, and
casts a wrong dtype. What is restored here has the names, shapes, dtypes and bytes that were saved.
"""

import zlib
from pathlib import Path
from typing import Any, NamedTuple

import flax.traverse_util
import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers


class Restored(NamedTuple):
  """A step read back: ``arrays`` by name, and the ``config`` saved with them."""

  step: int
  arrays: dict[str, np.ndarray]
  config: dict[str, Any]


class DamagedError(ValueError):
  """A step that cannot be read, or not as it was written."""


def open_manager(directory: Path, *, keep: int = 2, keep_every: int | None = None) -> ocp.CheckpointManager:
  """Opens or creates a folder of checkpoints; saves are asynchronous.

  Args:
    directory: The folder.
    keep: How many of the newest steps to keep.
    keep_every: Steps divisible by this are kept for ever; None keeps no others.
  """
  policies: list[Any] = [checkpoint_managers.LatestN(keep)]
  if keep_every:
    policies.append(checkpoint_managers.EveryNSteps(keep_every))
  options = ocp.CheckpointManagerOptions(
    preservation_policy=checkpoint_managers.preservation_policy.AnyPreservationPolicy(policies)
  )
  return ocp.CheckpointManager(Path(directory).absolute(), options=options)


def flatten(tree) -> dict[str, Any]:
  """Leaves of any pytree by name, such as ``"opt_state.1.0.mu.conv_in.kernel"``."""
  leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
  return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _checksum(array: np.ndarray) -> int:
  return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _describe(arrays: dict[str, np.ndarray]) -> dict[str, list]:
  return {name: [str(a.dtype), list(a.shape), _checksum(a)] for name, a in arrays.items()}


def save(manager: ocp.CheckpointManager, step: int, state, config: dict[str, Any]) -> None:
  """Starts saving ``state``; returns once it has been copied, so that it may be donated at once.

  Args:
    manager: From `open_manager`.
    step: Number of updates behind this state.
    state: Any pytree of arrays, each whole on this process.
    config: JSON values from which the program can rebuild the model.
  """
  # A copy: on the CPU, device_get gives views of buffers that the next step donates.
  arrays = {name: np.array(leaf) for name, leaf in flatten(jax.device_get(state)).items()}
  meta = {"config": config, "arrays": _describe(arrays)}
  manager.save(
    step, args=ocp.args.Composite(state=ocp.args.StandardSave(arrays), meta=ocp.args.JsonSave(meta))
  )


def restore(manager: ocp.CheckpointManager, step: int) -> Restored:
  """Reads one step and checks every array against what was saved.

  Raises:
    DamagedError: If anything is missing, unreadable or changed; names what.
  """
  args = ocp.args.Composite(state=ocp.args.StandardRestore(), meta=ocp.args.JsonRestore())
  try:
    items = manager.restore(step, args=args)
    arrays = {name: np.asarray(array) for name, array in items["state"].items()}
    config, expected = items["meta"]["config"], items["meta"]["arrays"]
  except Exception as error:  # damage surfaces as nearly any type, plain Exception included
    raise DamagedError(f"step {step} cannot be read: {type(error).__name__}: {_first_line(error)}") from error
  found = _describe(arrays)
  if wrong := sorted(n for n in expected.keys() | found.keys() if expected.get(n) != found.get(n)):
    raise DamagedError(f"step {step} is damaged: {len(wrong)} arrays are not as saved, such as {wrong[0]}")
  return Restored(step, arrays, config)


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
  return ocp.CheckpointManager(directory, options=ocp.CheckpointManagerOptions(read_only=True))


def restore_latest(directory: Path, step: int | None = None) -> Restored:
  """The newest step of a folder, or the one asked for, for reading only.

  Raises:
    FileNotFoundError: If there is no checkpoint, or not that one.
    DamagedError: If it is damaged.
  """
  directory = Path(directory).absolute()
  if not directory.is_dir():
    raise FileNotFoundError(f"no checkpoints: {directory} does not exist")
  there = steps(directory)
  if not there or step not in (None, *there):
    raise FileNotFoundError(f"no checkpoint of step {step or 'any'} in {directory}, which has {there}")
  with _reader(directory) as manager:
    return restore(manager, there[-1] if step is None else step)


def fill(template, arrays: dict[str, np.ndarray]):
  """A pytree like ``template`` with these arrays as its leaves.

  Raises:
    ValueError: If names, shapes or dtypes differ; lists them.
  """
  expected = flatten(template)
  wrong = [f"{name} is missing" for name in expected if name not in arrays]
  wrong += [f"{name} is not part of this model" for name in arrays if name not in expected]
  for name in expected.keys() & arrays.keys():
    want, got = expected[name], arrays[name]
    if (want.shape, want.dtype) != (got.shape, got.dtype):
      wrong.append(f"{name} is {got.dtype}{list(got.shape)}, expected {want.dtype}{list(want.shape)}")
  if wrong:
    raise ValueError("the checkpoint does not fit: " + "; ".join(sorted(wrong)[:8]))
  return jax.tree.unflatten(jax.tree.structure(template), [arrays[name] for name in expected])


def subtree(arrays: dict[str, np.ndarray], name: str) -> dict[str, Any]:
  """The nested dictionary of arrays saved below ``name``, for instance ``"ema"``."""
  prefix = name + "."
  below = {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
  return flax.traverse_util.unflatten_dict(below, sep=".")
