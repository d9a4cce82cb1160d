"""Weights of another project as a diffusers folder: ``python -m experiments.convert SRC DST``."""

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import flax.traverse_util
import numpy as np
import tyro

from ddim_jax import interop
from ddim_jax.interop import names
from experiments import cli


@dataclass(frozen=True)
class Args:
  """What to read and where to write."""

  source: tyro.conf.Positional[Path]
  """A diffusers folder, or a .ckpt or .pth file of the original DDIM code."""
  destination: tyro.conf.Positional[Path]
  """A diffusers folder; must not exist, or be empty."""
  ema: bool = True
  """Of a training file, take the averaged weights."""


def load(source: Path, ema: bool = True) -> interop.Pretrained:
  """Reads any of the supported kinds."""
  if source.suffix in (".ckpt", ".pth"):
    return interop.load_ddim(source, ema=ema)
  return interop.load_diffusers(source)


def main(args: Args) -> None:
  """Converts, prints what went where, and compares after a round trip."""
  before = load(args.source, args.ema)
  with tempfile.TemporaryDirectory() as scratch:
    interop.save_diffusers(Path(scratch) / "folder", before)
    after = interop.load_diffusers(Path(scratch) / "folder")
  interop.save_diffusers(args.destination, before)
  ours = flax.traverse_util.flatten_dict(before.variables["params"], sep="/")
  again = flax.traverse_util.flatten_dict(after.variables["params"], sep="/")
  levels = len(before.model.multipliers)
  for name, array in ours.items():
    theirs = next(iter(names.export({name: array}, levels, names.to_diffusers)))
    print(f"{name:45} {theirs:60} {'x'.join(map(str, array.shape))}")
  difference = max(float(np.max(np.abs(ours[name] - again[name]))) for name in ours)
  print(f"wrote {args.destination}: {len(ours)} arrays; largest difference after a round trip {difference:g}")


def parse(argv: Sequence[str]) -> Args:
  """The command line as `Args`."""
  return tyro.cli(Args, args=argv, prog="experiments.convert")


if __name__ == "__main__":
  arguments = parse(sys.argv[1:])
  cli.run(lambda: main(arguments))
