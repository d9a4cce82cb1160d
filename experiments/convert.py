"""Weights from one project's files to another's: ``python -m experiments.convert SRC DST``."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import flax.traverse_util
import numpy as np
import tyro

from ddim_jax import checkpoints, interop
from ddim_jax.interop import names
from experiments import build, cli, origins, sampler
from experiments import config as configs


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


def as_pretrained(trained: sampler.Trained) -> interop.Pretrained:
  """A model of ours, or one that was imported, as `interop.save_diffusers` takes it."""
  variables, config = {"params": trained.params}, trained.config
  if config.imported is not None:
    return interop.describe(**config.imported)._replace(variables=variables)
  return interop.from_ours(
    trained.model, variables, trained.schedule, build.parameterisation(config), size=trained.shape[0]
  )


def _save_checkpoint(folder: Path, step: int, description: dict[str, Any], params) -> None:
  """A checkpoint that holds the averaged weights alone."""
  if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
    raise ValueError(f"{folder} exists and is not an empty folder")
  with checkpoints.open_manager(folder / "checkpoints") as manager:
    checkpoints.save(manager, step, {"ema": params}, description)


def _write(folder: Path, to: str, description: dict[str, Any], params) -> Any:
  """Writes ``folder`` and gives the parameters that are read back from it."""
  step = int(description["step"])
  if to == "diffusers":
    interop.save_diffusers(folder, as_pretrained(sampler.assemble(step, description, params)))
  else:
    _save_checkpoint(folder, step, description, params)
  return origins.read(folder)[1]


def main(args: Args) -> None:
  """Converts, prints what went where, and compares after a round trip."""
  description, params = origins.read(args.source, ema=None if args.ema else 0, size=args.size)
  again = flax.traverse_util.flatten_dict(_write(args.destination, args.to, description, params))
  ours = flax.traverse_util.flatten_dict(params)
  levels = len(build.model(configs.from_json(description["config"]), *_counts(description)).multipliers)
  for path, array in ours.items():
    name = "/".join(path)
    theirs = next(iter(names.export({name: array}, levels, names.to_diffusers)))
    there = theirs if args.to == "diffusers" else f"ema.{'.'.join(path)}"
    print(f"{name:45} {there:60} {'x'.join(map(str, array.shape))}")
  difference = max(float(np.max(np.abs(ours[path] - again[path]))) for path in ours)
  print(f"wrote {args.destination}: {len(ours)} arrays; largest difference after a round trip {difference:g}")


def _counts(description: dict[str, Any]) -> tuple[int, int]:
  return description["image"][-1], len(description["classes"])


def parse(argv: Sequence[str]) -> Args:
  """The command line as `Args`."""
  return tyro.cli(Args, args=argv, prog="experiments.convert")


if __name__ == "__main__":
  arguments = parse(sys.argv[1:])
  cli.run(lambda: main(arguments))
