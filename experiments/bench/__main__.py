"""``python -m experiments.bench NAME``."""

from collections.abc import Callable

import tyro

from ddim_jax.commands import cli
from experiments.bench.accelerator import accelerator
from experiments.bench.checkpoint import checkpoint
from experiments.bench.compile import compile
from experiments.bench.features import features
from experiments.bench.many_devices import scaling
from experiments.bench.memory import memory
from experiments.bench.photos import photos
from experiments.bench.pipeline import pipeline
from experiments.bench.sample import sample
from experiments.bench.solvers import solvers
from experiments.bench.train import train

BENCHMARKS: dict[str, Callable[..., None]] = {
  "sample": sample,
  "train": train,
  "compile": compile,
  "memory": memory,
  "features": features,
  "pipeline": pipeline,
  "photos": photos,
  "checkpoint": checkpoint,
  "scaling": scaling,
  "solvers": solvers,
  "accelerator": accelerator,
}

if __name__ == "__main__":
  cli.run(lambda: tyro.extras.subcommand_cli_from_dict(BENCHMARKS, prog="experiments.bench"), batch_size=8)
