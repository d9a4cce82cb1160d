"""The paper's tables and figures for any model: ``python -m experiments.paper MODEL``.

Cell by cell: what is done is in OUT/cells, and a run that was killed goes on in the cell it was in.
"""

import fnmatch
import json
import platform
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import flax
import jax
import numpy as np

import ddim_jax
from ddim_jax import ranges
from ddim_jax.commands import cli, options, outputs
from ddim_jax.console import say
from ddim_jax.models import tables
from ddim_jax.ranges import Count, Positive, Range, Rate, Seed, Unit
from experiments.paper import cells, page, study

AtLeast5 = Annotated[int, Range(5, 2**31 - 1)]


@dataclass(frozen=True)
class Args:
  """Makes the tables and figures of arXiv:2010.02502, a page that shows them, and results.json.

  Attributes:
    out: Folder for the results; by default NAME_paper in the folder of the run, or here.
    cells: Which to make, by name or its beginning: table1, table1/eta=0/S=10, figure4; * matches anything.
      All by default.
    steps: Numbers of steps S of table 1 and the figures.
    etas: Rows of table 1 above sigma-hat.
    inversion_steps: Numbers of steps S of table 2.
    spacing: Which levels to visit; by default the paper's choice: quadratic for cifar10, uniform for the
      others.
    num_samples: Images of each cell of table 1; the paper has 50,000.
    num_samples_long: The same where S is more than 100; as --num-samples by default.
    num_test: Test images of table 2 and of the loss by level.
    num_bits: Test images whose bits per dimension are bounded, at an NFE of T each.
    inception: Weights of the FID's Inception network; without, grey images are judged by a small classifier.
    clean_fid: Resize for the Inception network as clean-fid does, instead of pytorch-fid.
    step: Checkpoint to use; the newest by default.
    ema: Decay of the EMA to use, of those the run has kept; the main one by default.
    seed: Image i of a seed is always the same image.
    batch_size: Images at a time on each device.
    image_size: Height of the images in pixels, where another project's files do not say.
    data: What to compare with, where the model's files do not say: cifar10, fashion_mnist or digits.
  """

  model: options.Where = options.DEFAULT
  out: Path | None = None
  cells: tuple[str, ...] = ()
  steps: tuple[Positive, ...] = (10, 20, 50, 100, 1000)
  etas: tuple[Unit, ...] = (0.0, 0.2, 0.5, 1.0)
  inversion_steps: tuple[Positive, ...] = (10, 20, 50, 100, 200, 500, 1000)
  spacing: tables.SpacingName | None = None
  num_samples: AtLeast5 = 5_000
  num_samples_long: AtLeast5 | None = None
  num_test: Positive = 1_000
  num_bits: Positive = 16
  inception: Path | None = None
  clean_fid: bool = False
  step: Count | None = None
  ema: Rate | None = None
  seed: Seed = 0
  batch_size: Positive = 64
  image_size: options.Size = None
  data: str | None = None


def _check(args: Args) -> None:
  ranges.check_all(args)
  if not args.steps or not args.inversion_steps:
    raise ValueError("steps and inversion_steps must not be empty")
  if args.clean_fid and args.inception is None:
    raise ValueError("clean_fid needs inception")


def _versions() -> dict[str, str]:
  found = {module.__name__: module.__version__ for module in (ddim_jax, jax, flax, np)}
  device = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
  return found | {"python": platform.python_version(), "device": device}


def chosen(names: list[str], patterns: tuple[str, ...]) -> list[str]:
  """Names that a pattern matches, whole or up to a slash."""
  matches = lambda name, pattern: fnmatch.fnmatch(name, pattern) or fnmatch.fnmatch(name, f"{pattern}/*")
  for pattern in patterns:
    if not any(matches(name, pattern) for name in names):
      raise ValueError(f"cells: {pattern} matches none of {', '.join(names)}")
  return [name for name in names if not patterns or any(matches(name, p) for p in patterns)]


def main(args: Args) -> None:
  """Makes the cells that are not there, then the page."""
  _check(args)
  trained = options.model(args.model, args.step, args.ema, args.image_size, args.data)
  folder = args.out or outputs.place(None, args.model, f"{Path(args.model).stem}_paper")
  task = study.Task(
      trained, folder, args.spacing or ("quadratic" if trained.config.data.data == "cifar10" else "uniform"),
      args.seed, args.batch_size, args.inception, args.clean_fid,
  )  # fmt: skip
  plan = cells.plan(
      task, args.steps, args.etas, args.inversion_steps, args.num_samples,
      args.num_samples_long or args.num_samples, args.num_test, args.num_bits,
  )  # fmt: skip
  wanted = chosen(list(plan), args.cells)
  say(
    f"model       step {trained.step:,}, weights {task.weights_sha256[:16]}, {len(wanted)} cells in {folder}"
  )
  for number, name in enumerate(wanted, 1):
    path = folder / "cells" / f"{cells.slug(name)}.json"
    settings = plan[name].settings()
    if path.exists():
      if json.loads(path.read_text())["settings"] == settings:
        say(f"[{number}/{len(wanted)}] {name}: done before")
        continue
      say(f"{name}: was made with other settings, made again")
    say(f"[{number}/{len(wanted)}] {name}")
    began = time.monotonic()
    result = plan[name].make()
    say(f"{name}: {cells.summary(result)}, {time.monotonic() - began:.0f} s")
    outputs.write_json(path, {"name": name, "settings": settings, "result": result, "versions": _versions()})
  made = [json.loads(path.read_text()) for path in sorted((folder / "cells").glob("*.json"))]
  current = {c["name"]: c for c in made if c["settings"].get("model_sha256") == task.model_sha256}
  model = {"step": trained.step, "weights_sha256": task.weights_sha256, **task.description}
  outputs.write_json(folder / "results.json", {"model": model, "cells": current})
  text = page.page(model, current)
  (folder / "README.md").write_text(text)
  say(f"wrote {folder / 'README.md'} and results.json: {len(current)} cells of this model")


if __name__ == "__main__":
  cli.run(lambda: main(options.parse(Args, sys.argv[1:], "paper")), options=options.names(Args))
