"""Trains for some minutes, exports, measures and draws: for an accelerator that is there for a while.

    python -m experiments.train_for_minutes cifar10_small --dtype bfloat16 --max-minutes 50 --workdir runs/1
    python -m experiments.train_for_minutes cifar10_small --dtype bfloat16 --max-minutes 50 --workdir runs/2 \
        --from runs/1/model.safetensors

Every option of ``ddim train`` works here; --eval-num is the number of images that are measured in the end.
The second command goes on from the file of the first, on a machine that has nothing else of it: its optimiser
begins anew. The folder of the run gets model.safetensors (half precision), samples.png and measured.json.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

import ddim_jax
from ddim_jax import plots
from ddim_jax.commands import cli, outputs
from ddim_jax.commands.presets import Args
from ddim_jax.commands.train_model import train
from ddim_jax.commands.train_options import OPTIONS, parse
from ddim_jax.console import say, terminal
from ddim_jax.models import Model, build, datasets, drawing
from ddim_jax.runs import quality

STEPS = (10, 20, 50, 100)
_DRAWN = 100


def plain(model: Model) -> Model:
  """The model as it is shipped: computing in float32, whatever it was trained in."""
  network = dataclasses.replace(model.config.network, dtype="float32")
  config = dataclasses.replace(model.config, network=network)
  return build.from_config(
    config, model.shape, model.classes, model.params, model.step, scaling=model.scaling,
    conditions=model.conditions,
  )  # fmt: skip


def measured(model: Model, num: int, folder: Path, inception: Path | None) -> dict[str, Any]:
  """Distances of ``num`` deterministic samples to the training images, by steps; image i is of class i modulo
  their number."""
  judge = quality.judge(model.shape[-1], model.config.data.data, inception)
  real = quality.reference(datasets.open_data(model.config.data), judge, folder)
  rows = {}
  for steps in (S for S in STEPS if model.schedule.T >= S):
    seen = quality.drawn(judge, model, model.levels(steps), num)
    rows[str(steps)] = quality.measure(real, seen)
    say(f"S = {steps}: {judge.name} {rows[str(steps)]['frechet']:.2f}, N = {num:,}")
  return {"distance": judge.name, "steps": rows}


def train_for_minutes(args: Args) -> int:
  """Trains, then writes what the run's folder is to have; returns the exit status."""
  if status := train(args):
    return status
  workdir = args.run.workdir
  trained = ddim_jax.load(workdir)
  model = plain(trained)
  model.save(workdir / "model.safetensors")
  size, draw = drawing.numbered_pictures(trained, trained.levels(trained.own_steps), at_once=_DRAWN)
  drawn = plots.grid(draw(np.arange(size))[:_DRAWN], len(trained.classes) or None)
  plots.save_png(workdir / "samples.png", drawn, {"S": trained.own_steps})
  device = jax.devices()[0]
  about = {
    "device": device.device_kind, "jax": jax.__version__, "began_with": args.run.origin,
    "updates": model.step, "images": model.step * model.config.optimisation.batch_size,
    "config": build.to_json(model.config),
  }  # fmt: skip
  found = measured(trained, args.run.eval_num, workdir, args.run.inception)
  outputs.write_json(workdir / "measured.json", about | found)
  say(f"wrote {workdir}/model.safetensors, samples.png and measured.json")
  return 0


if __name__ == "__main__":
  with terminal():
    asked = parse(sys.argv[1:])
    size = asked.optimisation.batch_size
    cli.run(lambda: train_for_minutes(asked), batch_size=size, options=OPTIONS - {"channels"})
