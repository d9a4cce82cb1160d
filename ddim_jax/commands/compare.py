"""``ddim compare``: the same images for several S and eta, side by side."""

import time
from collections.abc import Sequence

import numpy as np

from ddim_jax import plots
from ddim_jax.commands import options, outputs
from ddim_jax.models import drawing, tables
from ddim_jax.ranges import Positive, Seed, Side, Unit

_MIN_BLOCK = 240
"""Smallest side of a block of the table, in pixels."""


def compare(
  model: options.Where = options.DEFAULT,
  *,
  steps: tuple[Positive, ...] = (10, 20, 50, 100),
  etas: tuple[Unit, ...] = (0.0, 1.0),
  side: Side = 5,
  spacing: tables.SpacingName | None = None,
  seed: Seed = 0,
  out: options.MaybeOut = None,
) -> None:
  """Draws a table of samples: a row for every eta, a column for every S, all from the same noise.

  ddim compare runs/mine --steps 10 20 50

  Args:
    model: The model.
    steps: Numbers of sampling steps S.
    etas: Values of eta, from 0 (deterministic) to 1 (as DDPM).
    side: Each cell of the table holds side x side images.
    spacing: Which levels to visit; uniform by default, or what another project's files say.
    seed: Image i of a seed is always the same image.
    out: The picture; by default compare.png in the folder of the run, or here.
  """
  if not steps or not etas:
    raise ValueError("steps and etas must not be empty")
  place = outputs.place(out, model, "compare.png")
  trained, indices = options.model(model), np.arange(side**2)
  spacings = [trained.levels(S, spacing) for S in steps]
  rows: list[list[np.ndarray]] = [[] for _ in etas]
  for S, ts in zip(steps, spacings, strict=True):
    print(f"S = {S}: levels {' '.join(f'{t:g}' for t in ts)}")
    size, draw = drawing.numbered_pictures(trained, ts, seed=seed, at_once=len(indices))
    padded = np.arange(size)
    draw(padded, etas[0])  # compiles
    for row, eta in zip(rows, etas, strict=True):
      began = time.monotonic()
      images = draw(padded, eta)[: len(indices)]
      print(f"S = {S}, eta = {eta:g}: {len(indices)} images in {time.monotonic() - began:.2f} s")
      row.append(plots.enlarge(plots.grid(images, columns=side), _MIN_BLOCK))
  picture = plots.table(rows, [f"eta = {eta:g}" for eta in etas], [f"S = {S}" for S in steps])
  settings = {"model": model, "step": trained.step, "S": steps, "eta": etas, "seed": seed}
  outputs.save_png(place, picture, settings)
  print(f"picture: {place.absolute()}")


def main(argv: Sequence[str]) -> None:
  """Parses, draws and exits."""
  options.run(compare, argv, "ddim compare")
