"""The same images for several S and eta, side by side: ``python -m experiments.compare --workdir DIR``."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from ddim_jax import plots
from ddim_jax.models import drawing, tables
from experiments import cli, options

_MIN_BLOCK = 240
"""Smallest side of a block of the table, in pixels."""


@dataclass(frozen=True)
class Args:
  """Draws a table of samples: a row for every eta, a column for every S, all from the same noise."""

  workdir: options.Where
  steps: tuple[int, ...] = (10, 20, 50, 100)
  """Numbers of sampling steps S."""
  etas: tuple[float, ...] = (0.0, 1.0)
  """Values of eta, from 0 (deterministic) to 1 (as DDPM)."""
  side: int = 5
  """Each cell of the table holds side x side images."""
  spacing: tables.SpacingName = "uniform"
  """Which levels to visit."""
  seed: int = 0
  """Image i of a seed is always the same image."""
  out: Path | None = None
  """The picture; WORKDIR/compare.png by default."""


def compare(args: Args) -> None:
  """Draws the table; prints levels, times and where the picture is."""
  if args.side < 1 or not args.steps or not args.etas:
    raise ValueError("--side must be positive, and --steps and --etas not empty")
  if not all(0 <= eta <= 1 for eta in args.etas):
    raise ValueError(f"--etas must be in [0, 1], got {args.etas}")
  trained = options.model(args.workdir)
  indices = np.arange(args.side**2)
  rows: list[list[np.ndarray]] = [[] for _ in args.etas]
  for steps in args.steps:
    ts = trained.levels(steps, args.spacing)
    print(f"S = {steps}: levels {' '.join(map(str, ts))}")
    size, draw = drawing.numbered_pictures(trained, ts, seed=args.seed, at_once=len(indices))
    padded = np.arange(size)
    draw(padded, args.etas[0])  # compiles
    for row, eta in zip(rows, args.etas, strict=True):
      began = time.monotonic()
      images = draw(padded, eta)[: len(indices)]
      print(f"S = {steps}, eta = {eta:g}: {len(indices)} images in {time.monotonic() - began:.2f} s")
      row.append(plots.enlarge(plots.grid(images, columns=args.side), _MIN_BLOCK))
  picture = plots.table(rows, [f"eta = {eta:g}" for eta in args.etas], [f"S = {s}" for s in args.steps])
  out = args.out or options.results_folder(args.workdir) / "compare.png"
  plots.save_png(out, picture)
  print(f"picture: {out.absolute()}")


if __name__ == "__main__":
  arguments = tyro.cli(Args, args=sys.argv[1:], prog="experiments.compare")
  cli.run(lambda: compare(arguments))
