"""``make demo``: trains a real DDIM on real digits in minutes, then shows what S and eta do."""

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from experiments import cli, compare, sample, train
from experiments.presets import Run, digits


@dataclass(frozen=True)
class Args:
  """Samples from the model that comes with the package, then trains one on digits (or goes on, or finds
  it done) and draws a picture."""

  workdir: Path = Path("runs/demo")
  """Folder of the run; the pictures are fashion_mnist.png and demo.png in it."""
  max_minutes: float = 4.0
  """Longest time to train."""


def main(args: Args) -> int:
  """Trains and draws; returns the exit status."""
  clothes = args.workdir / "fashion_mnist.png"
  sample.main(sample.Args(num=16, out=clothes))
  preset = digits()
  run = Run(
    args.workdir, steps=preset.run.steps, max_minutes=args.max_minutes, save_every=500, sample_every=500
  )
  if status := train.train(dataclasses.replace(preset, run=run)):
    return status
  compare.compare(compare.Args(args.workdir, steps=(5, 10, 20, 50), out=args.workdir / "demo.png"))
  return 0


if __name__ == "__main__":
  arguments = tyro.cli(Args, args=sys.argv[1:], prog="experiments.demo")
  cli.run(lambda: main(arguments), batch_size=digits().optimisation.batch_size)
