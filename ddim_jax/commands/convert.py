"""``ddim convert``: weights from one project's files to another's."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import flax.traverse_util
import numpy as np

from ddim_jax import checkpoints, interop
from ddim_jax.commands import options
from ddim_jax.console import say
from ddim_jax.interop import files, names
from ddim_jax.models import Model, build, load, records
from ddim_jax.places import local
from ddim_jax.ranges import Rate


def _save_checkpoint(folder: Path, model: Model) -> None:
  """A run whose only checkpoint holds the EMA alone."""
  with checkpoints.open_manager(files.new_folder(folder) / "checkpoints") as manager:
    checkpoints.save(manager, model.step, {"ema": model.params}, records.describe(model, portable=True))


def convert(
  model: options.Where,
  out: options.Out,
  *,
  to: Literal["diffusers", "checkpoint"] = "diffusers",
  ema: Rate | None = None,
  image_size: options.Size = None,
  flags: options.Flags = None,
) -> None:
  """Converts weights, prints what went where, and compares after a round trip.

  ddim convert runs/mine mine-for-diffusers

  ddim convert model.ckpt runs/converted --to checkpoint --image-size 32

  Args:
    model: The model.
    out: Folder to write; must not exist, or be empty.
    to: A folder for pipelines of diffusers, or one that every command takes for a run.
    ema: Decay of the EMA to use, of those the run has kept; of a .ckpt file, 0 takes the model's own weights.
    image_size: See `options.Size`.
    flags: See `options.Flags`.
  """
  out = files.new_folder(local(out, "out"))
  found = options.model(model, ema=ema, size=image_size, flags=flags)
  if to == "diffusers":
    pretrained = build.to_pretrained(found)
    interop.save_diffusers(out, pretrained)
    if interop.pipeline_of(pretrained) is None:
      kind = pretrained.scheduler["_class_name"]
      say(f"no pipeline of diffusers draws with a {kind}: network and scheduler are written by themselves")
  else:
    _save_checkpoint(out, found)
  ours = flax.traverse_util.flatten_dict(found.params)
  again = flax.traverse_util.flatten_dict(load(out).params)
  depth = len(found.network.multipliers)
  for path, array in ours.items():
    name = "/".join(path)
    theirs = next(iter(names.export({name: array}, depth, names.to_diffusers)))
    there = theirs if to == "diffusers" else f"ema.{'.'.join(path)}"
    say(f"{name:45} {there:60} {'x'.join(map(str, array.shape))}")
  difference = max(float(np.max(np.abs(ours[path] - again[path]))) for path in ours)
  say(f"wrote {out}: {len(ours)} arrays; largest difference after a round trip {difference:g}")


def main(argv: Sequence[str]) -> None:
  """Parses, converts and exits."""
  options.run(convert, argv, "ddim convert")
