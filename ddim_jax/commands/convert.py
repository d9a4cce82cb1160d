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


def write_diffusers(folder: Path, model: Model) -> tuple[str, str | None]:
  """Writes the files of diffusers, and says so where none of its pipelines draws from them.

  Returns:
    The class of its scheduler, and that pipeline, see `interop.pipeline_of`.

  Raises:
    ValueError: If diffusers cannot express the model, or the folder is not new.
  """
  pretrained = build.to_pretrained(model)
  interop.save_diffusers(folder, pretrained)
  kind, pipeline = pretrained.scheduler["_class_name"], interop.pipeline_of(pretrained)
  if pipeline is None:
    say(f"no pipeline of diffusers draws with a {kind}: network and scheduler are written by themselves")
  return kind, pipeline


def _save_checkpoint(folder: Path, model: Model) -> None:
  """A run whose only checkpoint holds the EMA alone."""
  with checkpoints.open_manager(folder / "checkpoints") as manager:
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
    write_diffusers(out, found)
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
