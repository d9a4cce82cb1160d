"""What a run holds: ``python -m experiments.inspect WORKDIR`` lists checkpoints and draws the loss."""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from ddim_jax import checkpoints, plots
from ddim_jax.runs import logs
from experiments import cli


@dataclass(frozen=True)
class Args:
  """Lists the checkpoints of a run, whether they are sound, its configuration and its last metrics."""

  workdir: tyro.conf.Positional[Path]
  """Folder of the run, as given to experiments.train."""


def _size(folder: Path) -> int:
  return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())


def inspect(args: Args) -> int:
  """Prints the report and writes WORKDIR/loss.png; the status is 1 if a checkpoint is damaged."""
  folder, damaged, config = args.workdir / "checkpoints", 0, None
  if not args.workdir.is_dir():
    raise FileNotFoundError(f"{args.workdir} does not exist")
  for step in checkpoints.steps(folder):
    try:
      config = checkpoints.restore_latest(folder, step).config
      verdict = "sound"
    except checkpoints.DamagedError as error:
      damaged, verdict = damaged + 1, f"DAMAGED: {error}"
    print(f"step {step:>9,}  {_size(folder / str(step)) / 1e6:8.1f} MB  {verdict}")
  for section, values in (config or {}).get("config", {}).items():
    print(f"{section}: " + ", ".join(f"{name} {value}" for name, value in values.items()))

  lines = [values for values, _ in logs.read_metrics(args.workdir / "metrics.jsonl")]
  if lines:
    print("last metrics: " + ", ".join(f"{name} {value:.6g}" for name, value in lines[-1].items()))
    steps, losses = (np.array([line[name] for line in lines]) for name in ("step", "loss"))
    plots.save_curve(args.workdir / "loss.png", steps, losses, f"{args.workdir.name}: loss", "loss")
    print(f"loss curve: {args.workdir / 'loss.png'}")
  else:
    print("no metrics yet")
  return 1 if damaged else 0


if __name__ == "__main__":
  arguments = tyro.cli(Args, args=sys.argv[1:], prog="experiments.inspect")
  cli.run(lambda: inspect(arguments))
