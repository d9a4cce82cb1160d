"""What saving costs: ``python -m experiments.bench checkpoint``."""

import shutil
import statistics
import tempfile
import time
from pathlib import Path

import jax

from ddim_jax import checkpoints
from experiments.bench import measure, noise


def checkpoint(
  batch_size: int = 8,
  every: int = 100,
  steps: int = 25,
  rounds: int = 8,
  workdir: Path | None = None,
  out: Path = measure.OUT,
) -> None:
  """What saving costs in training the full CIFAR-10 network, and how long a restore takes.

  Rounds of two blocks of training, one without a save and one that begins with a save and ends when it is on
  disk: the difference is what a save costs in seconds, whatever the distance between saves.

  Args:
    batch_size: Images a step.
    every: Steps between saves for which the cost is reported.
    steps: Steps in a block.
    rounds: How many rounds.
    workdir: Where to save, on the disk to be measured; a temporary folder by default.
    out: Folder for the JSON and the chart.
  """
  state, make_batch, update = noise.prepare("cifar10", batch_size)
  size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
  folder = Path(tempfile.mkdtemp(dir=workdir))

  def train(state, manager=None, number=0):
    began, snapshot = time.monotonic(), 0.0
    if manager is not None:
      checkpoints.save(manager, number, state, {})
      snapshot = time.monotonic() - began
    for step in range(steps):
      state, metrics = update(state, make_batch(step))
      jax.block_until_ready(metrics)
    if manager is not None:
      manager.wait_until_finished()
    return state, time.monotonic() - began, snapshot

  state, metrics = update(state, make_batch(0))  # compiles
  jax.block_until_ready(metrics)
  state, _, _ = train(state)  # the first block is slower than the others
  plain, extra, snapshots = [], [], []
  try:
    with checkpoints.open_manager(folder / "checkpoints") as manager:
      for number in range(rounds):
        state, without, _ = train(state)
        state, with_save, snapshot = train(state, manager, number)
        plain.append(without / steps)
        extra.append(with_save - without)
        snapshots.append(snapshot)
        print(f"round {number}: {without:.1f} s without, {with_save:.1f} s with a save", flush=True)
    began = time.monotonic()
    checkpoints.fill(state, checkpoints.restore_latest(folder / "checkpoints").arrays)
    restore = time.monotonic() - began
  finally:
    shutil.rmtree(folder)
  results = {
    "state_megabytes": round(size / 1e6, 1),
    "batch_size": batch_size,
    "steps_between_saves": every,
    "seconds_per_step": round(step := statistics.median(plain), 3),
    "seconds_of_snapshot": round(statistics.median(snapshots), 2),
    "seconds_of_save": [round(seconds, 2) for seconds in sorted(extra)],
    "ratio": round(1 + statistics.median(extra) / (every * step), 4),
    "seconds_of_restore": round(restore, 2),
  }
  bars = {"a step": step, "snapshot": results["seconds_of_snapshot"], "restore": restore}
  measure.report(f"checkpoint_cifar10_b{batch_size}", results, out, bars, "seconds")
