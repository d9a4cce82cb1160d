"""Trains for some minutes, exports, measures and draws: for an accelerator that is there for a while.

    python -m experiments.train_for_minutes cifar10_small --dtype bfloat16 --max-minutes 50 --workdir runs/1
    python -m experiments.train_for_minutes cifar10_small --dtype bfloat16 --max-minutes 50 --workdir runs/2 \
        --from runs/1/model.safetensors

Every option of ``ddim train`` works here; --eval-num is the number of images that are measured in the end.
The second command goes on from the file of the first, on a machine that has nothing else of it: its optimiser
begins anew. The folder of the run gets model.safetensors (half precision), samples.png, evaluation.json with
its chart, and about.json: the machine, the beginning and the configuration.
"""

import dataclasses
import sys

import jax

import ddim_jax
from ddim_jax.commands import cli, outputs
from ddim_jax.commands.evaluate_model import evaluate
from ddim_jax.commands.presets import Args
from ddim_jax.commands.sample_images import Args as Drawn
from ddim_jax.commands.sample_images import sample
from ddim_jax.commands.train_model import train
from ddim_jax.commands.train_options import OPTIONS, parse
from ddim_jax.console import say, terminal
from ddim_jax.models import Model, build

STEPS = (10, 20, 50, 100)


def plain(model: Model) -> Model:
  """The model as it is shipped: computing in float32, whatever it was trained in."""
  network = dataclasses.replace(model.config.network, dtype="float32")
  config = dataclasses.replace(model.config, network=network)
  return build.from_config(
    config, model.shape, model.classes, model.params, model.step, scaling=model.scaling,
    conditions=model.conditions,
  )  # fmt: skip


def train_for_minutes(args: Args) -> int:
  """Trains, then writes what the run's folder is to have; returns the exit status."""
  if status := train(args):
    return status
  workdir = args.run.workdir
  model = plain(ddim_jax.load(workdir))
  model.save(workdir / "model.safetensors")
  sample(Drawn(model=str(workdir), num=100, out=workdir / "samples.png"))
  about = {
    "device": jax.devices()[0].device_kind, "jax": jax.__version__, "began_with": args.run.origin,
    "updates": model.step, "images": model.step * model.config.optimisation.batch_size,
    "config": build.to_json(model.config),
  }  # fmt: skip
  outputs.write_json(workdir / "about.json", about)
  steps = tuple(S for S in STEPS if model.schedule.T >= S)
  evaluate(str(workdir), steps=steps, num=args.run.eval_num, inception=args.run.inception)
  say(f"wrote {workdir}/model.safetensors, samples.png, evaluation.json and about.json")
  return 0


if __name__ == "__main__":
  with terminal():
    asked = parse(sys.argv[1:], "python -m experiments.train_for_minutes")
    cli.run(lambda: train_for_minutes(asked), asked.optimisation.batch_size, OPTIONS - {"channels"})
