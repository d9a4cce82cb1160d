"""Weights from one project's files to another's: ``python -m experiments.convert SRC DST``."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import flax.traverse_util
import numpy as np
import tyro

from ddim_jax import checkpoints, interop
from ddim_jax.interop import files, names
from ddim_jax.models import Model, build
from experiments import cli, options


@dataclass(frozen=True)
class Args:
  """Converts weights, prints what went where, and compares after a round trip."""

  source: tyro.conf.Positional[Path]
  """A diffusers folder or id of its hub, a .ckpt or .pth file of the original DDIM code, the folder of a run,
  or a file of experiments.export."""
  destination: tyro.conf.Positional[Path]
  """Folder to write; must not exist, or be empty."""
  to: Literal["diffusers", "checkpoint"] = "diffusers"
  """A folder for diffusers.DDIMPipeline, or one for --workdir of experiments.sample and --from of
  experiments.train."""
  ema: bool = True
  """Of a training file of the original code, take the averaged weights."""
  size: int | None = None
  """Height of the images in pixels, where the files do not say."""


def _save_checkpoint(folder: Path, trained: Model) -> None:
  """A checkpoint that holds the averaged weights alone."""
  with checkpoints.open_manager(files.new_folder(folder) / "checkpoints") as manager:
    checkpoints.save(manager, trained.step, {"ema": trained.params}, build.describe(trained, portable=True))


def main(args: Args) -> None:
  """Converts, prints what went where, and compares after a round trip."""
  trained = options.model(args.source, ema=None if args.ema else 0, size=args.size)
  if args.to == "diffusers":
    interop.save_diffusers(args.destination, build.to_pretrained(trained))
  else:
    _save_checkpoint(args.destination, trained)
  ours = flax.traverse_util.flatten_dict(trained.params)
  again = flax.traverse_util.flatten_dict(options.model(args.destination).params)
  levels = len(trained.network.multipliers)
  for path, array in ours.items():
    name = "/".join(path)
    theirs = next(iter(names.export({name: array}, levels, names.to_diffusers)))
    there = theirs if args.to == "diffusers" else f"ema.{'.'.join(path)}"
    print(f"{name:45} {there:60} {'x'.join(map(str, array.shape))}")
  difference = max(float(np.max(np.abs(ours[path] - again[path]))) for path in ours)
  print(f"wrote {args.destination}: {len(ours)} arrays; largest difference after a round trip {difference:g}")


def parse(argv: Sequence[str]) -> Args:
  """The command line as `Args`."""
  return tyro.cli(Args, args=argv, prog="experiments.convert")


if __name__ == "__main__":
  arguments = parse(sys.argv[1:])
  cli.run(lambda: main(arguments))
