"""The cells of the paper's page: each a function, and the settings that decide its result."""

import functools
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import tqdm

from ddim_jax import checkpoints, data
from experiments import config as configs
from experiments import figures, quality, sampler

SIGMA_HAT = "sigma-hat"
_SAVE_SECONDS = 30.0


class Cell(NamedTuple):
  """One result.

  Attributes:
    settings: JSON values; a result made with others is made again.
    make: Makes it; JSON values.
  """

  settings: dict[str, Any]
  make: Callable[[], dict[str, Any]]


class Task:
  """A model under study; what costs time is made when it is first asked for, and kept."""

  def __init__(
    self, trained: sampler.Trained, folder: Path, spacing: configs.Spacing, seed: int, batch_size: int,
    inception: Path | None, clean: bool,
  ):  # fmt: skip
    """Takes a model and how to sample from it."""
    self.trained, self.folder, self.spacing, self.seed = trained, folder, spacing, seed
    self.at_once = batch_size * jax.local_device_count()
    self._inception, self._clean = inception, clean
    leaves = checkpoints.flatten(trained.params)
    content = hashlib.sha256()
    for name in sorted(leaves):
      content.update(name.encode() + np.ascontiguousarray(leaves[name]).tobytes())
    self.weights_sha256 = content.hexdigest()
    self._printed: set[int] = set()
    self._draws: dict[tuple[str, int], tuple[int, sampler.Draw]] = {}

  @property
  def description(self) -> dict[str, Any]:
    """The model's data, network and training."""
    config = configs.to_json(self.trained.config)
    config["data"].pop("data_dir")
    return config

  @functools.cached_property
  def judge(self) -> quality.Judge:
    """Who looks at the images."""
    return quality.judge(self.trained.shape[-1], self.trained.config.data.data, self._inception, self._clean)

  @functools.cached_property
  def reference(self) -> quality.Seen:
    """What the judge sees in the training images."""
    source = configs.build_source(self.trained.config.data)
    return quality.reference(source, self.judge, self.folder)

  @functools.cached_property
  def test(self) -> data.Source:
    """Test images, or training images where there is no such split."""
    split = "test" if self.trained.config.data.data in ("cifar10", "fashion_mnist") else None
    return configs.build_source(self.trained.config.data, split)

  def levels(self, S: int) -> np.ndarray:
    """The levels visited in S steps."""
    return configs.SPACINGS[self.spacing](self.trained.schedule.T, S)

  def print_levels(self, S: int) -> None:
    """Prints the levels visited in S steps, the first time it is asked."""
    if S not in self._printed:
      print(f"S = {S}, {self.spacing}: levels {' '.join(map(str, self.levels(S)))}", flush=True)
      self._printed.add(S)

  def sampler(self, row: str, S: int) -> tuple[int, sampler.Draw, np.ndarray]:
    """``(size, draw, levels)`` of a row of table 1; the levels are printed."""
    ts = self.levels(S)
    self.print_levels(S)
    solver = "ddpm-large" if row == SIGMA_HAT else "ddim"
    if (solver, S) not in self._draws:
      self._draws[solver, S] = sampler.numbered_images(
        self.trained, ts, solver=solver, seed=self.seed, clip=row == SIGMA_HAT, at_once=self.at_once
      )
    return *self._draws[solver, S], ts

  def settings(self, S: int | None = None, **others) -> dict[str, Any]:
    """What decides every cell: weights, seed, levels; and what is given."""
    levels = {} if S is None else {"S": S, "levels": self.levels(S).tolist(), "spacing": self.spacing}
    return {"weights_sha256": self.weights_sha256, "seed": self.seed, **levels, **others}


def slug(name: str) -> str:
  """A file name for a cell."""
  return name.replace("/", "_").replace("=", "")


def summary(result: dict[str, Any]) -> str:
  """The figures of a result in a line."""
  shown = {k: v for k, v in result.items() if isinstance(v, int | float)}
  return ", ".join(
    f"{name} {value:.4g}" if value < 1e5 else f"{name} {value:,}" for name, value in shown.items()
  )


def _eta(row: str) -> float:
  return 0.0 if row == SIGMA_HAT else float(row.removeprefix("eta="))


def _table1(task: Task, row: str, S: int, num: int, settings: dict[str, Any]) -> dict[str, Any]:
  """Draws and measures; what has been seen is on the disk twice a minute."""
  task.reference  # noqa: B018, before the images: it may fail
  identity = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]
  partial = task.folder / "cells" / f"partial-{identity}.npz"
  seen = quality.load(partial) if partial.exists() else None
  size, draw, _ = task.sampler(row, S)
  done, saved = (seen.moments.num if seen else 0), time.monotonic()
  with tqdm.tqdm(total=num, initial=done, unit="image", dynamic_ncols=True) as bar:
    for start in range(done, num, size):
      images = draw(np.arange(start, start + size), _eta(row))[: num - start]
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
    cells[name] = Cell(settings, lambda: make(task, *arguments))

  common = task.settings(steps=list(steps), spacing=task.spacing)
  add("figure3", figures.figure3, common | {"rows": rows}, rows, steps)
  add("figure4", figures.figure4, common | {"at_once": task.at_once}, steps)
  add("figure5", figures.figure5, common, steps)
  add("figure6", figures.figure6, task.settings(min(50, task.trained.schedule.T)))
  add("levels", figures.levels, task.settings(num=num_test), num_test)
  for S in inversion_steps:
    add(f"table2/S={S}", figures.table2, task.settings(S, num=num_test, clip=False), S, num_test)
  for S in sorted(steps):
    for row in rows:
      count = num_long if S > 100 else num
      settings = task.settings(S, row=row, num=count, clip=row == SIGMA_HAT, judge=task.judge.name)
      settings |= {"judge_sha256": task.judge.sha256}
      cells[f"table1/{row}/S={S}"] = Cell(settings, functools.partial(_table1, task, row, S, count, settings))
  add("bits", figures.bits, task.settings(num=num_bits, clip=True), num_bits)
  return cells
