"""``ddim compare``: the same images for several steps, eta, guidance weights or solvers, side by side."""

import time
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from ddim_jax import plots
from ddim_jax.commands import options, outputs
from ddim_jax.console import say
from ddim_jax.models import drawing, tables
from ddim_jax.ranges import Positive, Real, Seed, Side, Unit

Axis = Literal["steps", "eta", "guidance", "solver"]
_ON_AXIS: dict[str, tuple[Any, ...]] = {
  "steps": (10, 20, 50, 100), "eta": (0.0, 1.0), "guidance": (1.0, 2.0, 4.0),
  "solver": ("ddim", "dpmpp-2m", "unipc2"),
}  # fmt: skip
"""Values on an axis, where none are given."""
_ALONE: dict[str, tuple[Any, ...]] = {"steps": (50,), "eta": (0.0,), "guidance": (1.0,), "solver": ("ddim",)}
"""The value of what is on no axis, where none is given."""
_OPTIONS = {"steps": "steps", "eta": "etas", "guidance": "guidances", "solver": "solvers"}
_MIN_BLOCK = 240
"""Smallest side of a block of the table, in pixels."""


def _chosen(given: dict[str, tuple[Any, ...] | None], axes: tuple[str, str]) -> dict[str, tuple[Any, ...]]:
  """Values of everything, as given or by default; one each of what is on no axis.

  Raises:
    ValueError: If the axes are the same, no value is given, or several of what is on no axis.
  """
  if axes[0] == axes[1]:
    raise ValueError(f"rows and columns must differ, got {axes[0]} for both")
  found = {}
  for name, values in given.items():
    found[name] = (_ON_AXIS if name in axes else _ALONE)[name] if values is None else values
    if not found[name]:
      raise ValueError(f"{_OPTIONS[name]} must not be empty")
    if name not in axes and len(found[name]) > 1:
      raise ValueError(
        f"{_OPTIONS[name]} must be one value unless rows or columns is {name}, got {len(found[name])}"
      )
  return found


def _title(axis: str, value: Any) -> str:
  return str(value) if axis == "solver" else f"{'S' if axis == 'steps' else axis} = {value:g}"


def compare(
  model: options.Where = options.DEFAULT,
  *,
  rows: Axis = "eta",
  columns: Axis = "steps",
  steps: tuple[Positive, ...] | None = None,
  etas: tuple[Unit, ...] | None = None,
  guidances: tuple[Real, ...] | None = None,
  solvers: tuple[tables.SolverName, ...] | None = None,
  label: options.Label = None,
  side: Side = 5,
  spacing: tables.SpacingName | None = None,
  seed: Seed = 0,
  image_size: options.Size = None,
  flags: options.Flags = None,
  out: options.MaybeOut = None,
) -> None:
  """Draws a table of samples, all from the same noise: by default a row for every eta, a column for every S.

  ddim compare runs/mine --steps 10 20 50

  ddim compare fashion_mnist_classes --rows solver --columns guidance --steps 10

  Args:
    model: The model.
    rows: What differs from row to row.
    columns: What differs from column to column.
    steps: Numbers of sampling steps S.
    etas: Values of eta, from 0 (deterministic) to 1 (as DDPM).
    guidances: Weights of classifier-free guidance; 1 is the model itself.
    solvers: Solvers; eta goes with ddim alone.
    label: Class to draw, by number or name; by default image i is of class i modulo the number of
      classes.
    side: Each cell of the table holds side x side images.
    spacing: Which levels to visit; uniform by default, or what another project's files say.
    seed: Image i of a seed is always the same image.
    image_size: See `options.Size`.
    flags: See `options.Flags`.
    out: The picture; by default compare.png in the folder of the run, or here.
  """
  given = {"steps": steps, "eta": etas, "guidance": guidances, "solver": solvers}
  values = _chosen(given, (rows, columns))
  place = outputs.place(out, model, "compare.png")
  trained, indices = options.model(model, size=image_size, flags=flags), np.arange(side**2)
  levels = {S: trained.levels(S, spacing) for S in values["steps"]}
  for S, ts in levels.items():
    say(f"S = {S}: levels {' '.join(f'{t:g}' for t in ts)}")
  numbers = trained.labels(label)
  blocks: list[list[np.ndarray]] = []
  for row in values[rows]:
    blocks.append([])
    for column in values[columns]:
      cell = {name: each[0] for name, each in values.items()} | {rows: row, columns: column}
      size, draw = drawing.numbered_pictures(
        trained, levels[cell["steps"]], solver=cell["solver"], seed=seed, label=numbers,
        guidance=cell["guidance"], at_once=len(indices),
      )  # fmt: skip
      began = time.monotonic()
      images = draw(np.arange(size), cell["eta"])[: len(indices)]
      said = ", ".join((_title(rows, row), _title(columns, column)))
      say(f"{said}: {len(indices)} images in {time.monotonic() - began:.2f} s")
      blocks[-1].append(plots.enlarge(plots.grid(images, columns=side), _MIN_BLOCK))
  titles = [[_title(axis, value) for value in values[axis]] for axis in (rows, columns)]
  settings = {"model": model, "step": trained.step, **values, "label": label, "seed": seed}
  plots.save_png(place, plots.table(blocks, *titles), settings | {"S": values["steps"]})
  say(f"picture: {place.absolute()} (times include compiling, once for each solver)")


def main(argv: Sequence[str]) -> None:
  """Parses, draws and exits."""
  options.run(compare, argv, "ddim compare")
