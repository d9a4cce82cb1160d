"""Folders of checkpoints, and writing into them."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from ddim_jax import ranges
from ddim_jax.checkpoints.trees import described, first_line, flatten, meta_checksum
from ddim_jax.console import STDERR
from ddim_jax.packing import unpack
from ddim_jax.places import for_checkpoints

_FOREVER = 4_000_000_000
"""Seconds: more than a clock that starts at 1970 jumps, and less than a thread can wait."""


class SaveError(OSError):
  """A step that could not be written; those saved before are untouched."""


@contextlib.contextmanager
def open_manager(
  directory: Path,
  *,
  keep: ranges.Positive = 2,
  keep_every: ranges.Positive | None = None,
) -> Iterator[ocp.CheckpointManager]:
  """Opens or creates a folder of checkpoints; saves are asynchronous, and finished on leaving.

  Of the steps saved with a metric, the one with the lowest is kept too.

  Args:
    directory: The folder.
    keep: How many of the newest steps to keep, at least 1.
    keep_every: Steps divisible by this are kept for ever; None keeps no others.

  Raises:
    ValueError: If ``keep`` or ``keep_every`` is not positive.
    SaveError: On leaving, if the last save failed.
  """
  ranges.check_all(open_manager, {"keep": keep, "keep_every": keep_every})
  policies: list[Any] = [
    checkpoint_managers.LatestN(keep),
    checkpoint_managers.BestN(
      get_metric_fn=lambda metrics: metrics["metric"],
      reverse=True,  # the lowest
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
    # Its time is that of the clock on the wall, and a process alone waits for nobody but its disk.
    async_options=ocp.AsyncOptions(timeout_secs=_FOREVER) if jax.process_count() == 1 else None,
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
    reason = next((k for k in known if k in str(error)), f"{type(error).__name__}: {first_line(error)}")
    raise SaveError(f"cannot save a checkpoint in {manager.directory}: {reason}") from error


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
  meta = {"config": config, "arrays": described(arrays)}
  args = ocp.args.Composite(
    state=ocp.args.StandardSave(arrays),
    meta=ocp.args.JsonSave(meta | {"crc32": meta_checksum(meta)}),
  )
  with _saving(manager):
    manager.save(step, args=args, metrics=None if metric is None else {"metric": metric})
