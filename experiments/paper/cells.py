"""The cells of the paper's page: each a function, and the settings that decide its result."""

import functools
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ddim_jax import console
from ddim_jax.runs import quality
from experiments.paper import figures
from experiments.paper.study import SIGMA_HAT, Task, eta_of

_SAVE_SECONDS = 30.0


class Cell(NamedTuple):
  """One result.

  Attributes:
    settings: JSON values; a result made with others is made again. A function, since those of table 1
      ask who judges, and the other cells need no judge.
    make: Makes it; JSON values.
  """

  settings: Callable[[], dict[str, Any]]
  make: Callable[[], dict[str, Any]]


def slug(name: str) -> str:
  """A file name for a cell."""
  return name.replace("/", "_").replace("=", "")


def summary(result: dict[str, Any]) -> str:
  """The figures of a result in a line."""
  shown = {k: v for k, v in result.items() if isinstance(v, int | float)}
  return ", ".join(
    f"{name} {value:,}" if isinstance(value, int) else f"{name} {value:.4g}" for name, value in shown.items()
  )


def _judged(task: Task, settings: dict[str, Any]) -> dict[str, Any]:
  judge = {"judge": task.judge.name, "judge_sha256": task.judge.sha256}
  return settings | judge | {"training": quality.identity(task.training)}


def _tested(task: Task, num: int, settings: dict[str, Any]) -> dict[str, Any]:
  return settings | {"num": num, "test": quality.identity(task.test, num)}


def _table1(task: Task, row: str, S: int, num: int, settings: Callable[[], dict[str, Any]]) -> dict[str, Any]:
  """Draws and measures; what has been seen is on the disk twice a minute."""
  task.reference  # noqa: B018, before the images: it may fail
  identity = hashlib.sha256(json.dumps(settings()).encode()).hexdigest()[:16]
  partial = task.folder / "cells" / f"partial-{identity}.npz"
  seen = quality.load(partial) if partial.exists() else None
  size, draw, _ = task.sampler(row, S)
  done, saved = (seen.moments.num if seen else 0), time.monotonic()
  with console.bar(total=num, initial=done, unit="image") as bar:
    for start in range(done, num, size):
      images = draw(np.arange(start, start + size), eta_of(row))[: num - start]
      seen = quality.add(seen, *task.judge.look(images))
      bar.update(len(images))
      if time.monotonic() - saved > _SAVE_SECONDS:
        quality.save(partial, seen)
        saved = time.monotonic()
  if seen is None:
    raise ValueError(f"no images to measure: num must be positive, got {num}")
  reference = {
    "reference_sha256": quality.digest(task.reference),
    "reference_N": task.reference.moments.num,
  }
  result = quality.measure(task.reference, seen, task.seed) | reference
  partial.unlink(missing_ok=True)
  return result


def plan(
  task: Task,
  steps: Sequence[int],
  etas: Sequence[float],
  inversion_steps: Sequence[int],
  num: int,
  num_long: int,
  num_test: int,
  num_bits: int,
) -> dict[str, Cell]:
  """All cells by name, in the order in which they are made: cheap ones first.

  Raises:
    ValueError: If there cannot be so many steps.
  """
  rows = [f"eta={eta:g}" for eta in etas] + [SIGMA_HAT]
  cells: dict[str, Cell] = {}

  def add(name: str, make: Callable[..., dict[str, Any]], settings: dict[str, Any], *arguments) -> None:
    cells[name] = Cell(lambda: settings, lambda: make(task, *arguments))

  def add_tested(name: str, make: Callable[..., dict[str, Any]], num: int, *arguments, **settings) -> None:
    decides = functools.partial(_tested, task, num, task.settings(*arguments, **settings))
    cells[name] = Cell(decides, lambda: make(task, *arguments, num))

  common = task.settings(steps=list(steps), spacing=task.spacing)
  add("figure3", figures.figure3, common | {"rows": rows}, rows, steps)
  add("figure4", figures.figure4, common | {"at_once": task.at_once}, steps)
  add("figure5", figures.figure5, common, steps)
  add("figure6", figures.figure6, task.settings(task.trained.own_steps))
  add_tested("levels", figures.levels, num_test)
  for S in inversion_steps:
    add_tested(f"table2/S={S}", figures.table2, num_test, S, clip=False)
  for S in sorted(steps):
    for row in rows:
      count = num_long if S > 100 else num
      levels = task.settings(S, row=row, num=count, clip=row == SIGMA_HAT)
      settings = functools.partial(_judged, task, levels)
      make = functools.partial(_table1, task, row, S, count, settings)
      cells[f"table1/{row}/S={S}"] = Cell(settings, make)
  add_tested("bits", figures.bits, num_bits, clip=True)
  return cells
