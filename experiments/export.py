"""A trained model as one file: ``python -m experiments.export --workdir DIR --out FILE.safetensors``."""

import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from experiments import cli, options


@dataclass(frozen=True)
class Args:
  """Writes the averaged weights and the configuration of a run, in half precision, as safetensors.

  Every program that takes --workdir takes such a file too.
  """

  workdir: options.Where
  out: Path
  """File to write, ending in .safetensors."""
  step: int | None = None
  """Checkpoint to use; the newest by default."""
  ema: float | None = None
  """Decay of the average to use, of those the run has kept; --ema of the training by default."""


def main(args: Args) -> None:
  """Writes the file and says what is in it."""
  if args.out.suffix != ".safetensors":
    raise ValueError(f"--out must end in .safetensors, got {args.out}")
  trained = options.model(args.workdir, args.step, args.ema)
  trained.save(args.out)
  seen = trained.step * trained.config.optimisation.batch_size
  size = args.out.stat().st_size / 1e6
  print(f"wrote {args.out}: step {trained.step:,}, {seen:,} images seen, {size:.2f} MB")


if __name__ == "__main__":
  arguments = tyro.cli(Args, args=sys.argv[1:], prog="experiments.export")
  cli.run(lambda: main(arguments))
