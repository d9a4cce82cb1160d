"""A model under study: how its images are drawn, who looks at them, and against what."""

import functools
import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ddim_jax import checkpoints, data
from ddim_jax.console import say
from ddim_jax.models import Model, build, datasets, drawing, tables
from ddim_jax.runs import quality

SIGMA_HAT = "sigma-hat"
"""The row of table 1 with the larger variance; the others are called eta=0, eta=0.2 and so on."""


def eta_of(row: str) -> float:
  """The eta of a row of table 1; sigma-hat, which has none, gets 0."""
  return 0.0 if row == SIGMA_HAT else float(row.removeprefix("eta="))


class Task:
  """A model under study; what costs time is made when it is first asked for, and kept."""

  def __init__(
    self, trained: Model, folder: Path, spacing: tables.SpacingName, seed: int, batch_size: int,
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
    self.model_sha256 = hashlib.sha256(
      json.dumps([self.description, trained.shape, trained.classes, trained.scaling]).encode()
    ).hexdigest()
    self._printed: set[int] = set()
    self._draws: dict[tuple[str, int, int], tuple[int, drawing.Draw]] = {}

  @property
  def description(self) -> dict[str, Any]:
    """The model's data, network and training."""
    config = build.to_json(self.trained.config)
    config["data"].pop("data_dir")
    return config

  @functools.cached_property
  def judge(self) -> quality.Judge:
    """Who looks at the images."""
    return quality.judge(self.trained.shape[-1], self.trained.config.data.data, self._inception, self._clean)

  @functools.cached_property
  def training(self) -> data.Source:
    """The training images."""
    return datasets.open_data(self.trained.config.data)

  @functools.cached_property
  def reference(self) -> quality.Seen:
    """What the judge sees in them."""
    return quality.reference(self.training, self.judge, self.folder)

  @functools.cached_property
  def test(self) -> data.Source:
    """Test images, or training images where there is no such split."""
    return datasets.test_data(self.trained)

  def levels(self, S: int) -> np.ndarray:
    """The levels visited in S steps."""
    return self.trained.levels(S, self.spacing)

  def print_levels(self, S: int) -> None:
    """Prints the levels visited in S steps, the first time it is asked."""
    if S not in self._printed:
      say(f"S = {S}, {self.spacing}: levels {' '.join(map(str, self.levels(S)))}")
      self._printed.add(S)

  def sampler(self, row: str, S: int, num: int | None = None) -> tuple[int, drawing.Draw, np.ndarray]:
    """``(size, draw, levels)`` of a row of table 1, for ``num`` images at most; the levels are printed."""
    ts = self.levels(S)
    self.print_levels(S)
    solver: tables.SolverName = "ddpm-large" if row == SIGMA_HAT else "ddim"
    at_once = min(self.at_once, num or self.at_once)
    if (solver, S, at_once) not in self._draws:
      self._draws[solver, S, at_once] = drawing.numbered_pictures(
        self.trained, ts, solver=solver, seed=self.seed, clip=row == SIGMA_HAT, at_once=at_once
      )
    return *self._draws[solver, S, at_once], ts

  def settings(self, S: int | None = None, **others) -> dict[str, Any]:
    """What decides every cell: weights, model, seed, levels; and what is given."""
    levels = {} if S is None else {"S": S, "levels": self.levels(S).tolist(), "spacing": self.spacing}
    model = {"weights_sha256": self.weights_sha256, "model_sha256": self.model_sha256}
    return {**model, "seed": self.seed, **levels, **others}
