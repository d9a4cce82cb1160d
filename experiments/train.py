"""Trains a model: ``python -m experiments.train PRESET [options]``; ``--help`` lists them all."""

import sys
from collections.abc import Sequence

import jax
import optax
import tyro

from ddim_jax import checkpoints
from ddim_jax.cpu import heap
from ddim_jax.data import Source
from ddim_jax.models import Model, build, datasets, load
from ddim_jax.models.loading import is_run
from ddim_jax.models.tables import named
from ddim_jax.runs import Interrupted, connected, fit
from ddim_jax.runs.logs import say
from experiments import cli
from experiments.presets import PRESETS, Args

OPTIMIZERS = {"adam": optax.adam, "sgd": optax.sgd}


def parse(argv: Sequence[str]) -> Args:
  """The preset named first, changed by the options after it."""
  presets = {name: (preset.__doc__ or "", preset()) for name, preset in PRESETS.items()}
  config = (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes)
  return tyro.extras.overridable_config_cli(presets, args=argv, prog="experiments.train", config=config)


def starting_model(args: Args, source: Source) -> Model:
  """The model that a run begins with, or goes on with: then the files given with --from may be gone.

  Raises:
    ValueError: If a run that goes on began from other weights, or from none.
  """
  origin, config = args.run.origin, args.config
  saved = checkpoints.newest_config(args.run.workdir / "checkpoints")
  if saved is not None:
    began = saved.get("from")
    if (None if origin is None else str(origin)) != began:
      said = "was not given a --from" if began is None else f"began with --from {began}"
      asked_for = "without it" if origin is None else f"with --from {origin}"
      raise ValueError(f"this run {said} and cannot go on {asked_for}")
    if origin is not None:
      config = build.adopt(config, build.from_json(saved["config"]))
    return build.from_config(config, source.shape, source.classes)
  if origin is None:
    return build.from_config(config, source.shape, source.classes)
  given = load(str(origin), size=None if is_run(origin) else source.shape[0])
  return build.from_config(build.adopt(config, given.config), source.shape, source.classes, given.params)


def train(args: Args) -> int:
  """Trains until ``args.run.steps`` or until told to stop; returns the exit status."""
  run, options = args.run, args.optimisation
  workdir = run.workdir.expanduser()
  with connected(
    workdir, distributed=run.distributed, coordinator=run.coordinator, num_processes=run.num_processes,
    process_id=run.process_id,
  ):  # fmt: skip
    source = datasets.open_data(args.data)
    try:
      model = fit(
        workdir, starting_model(args, source), source, steps=run.steps, batch_size=options.batch_size,
        flip=args.data.flip, optimizer=named(OPTIMIZERS, options.optimizer, "optimizer"),
        learning_rate=options.learning_rate, warmup=options.warmup, clip=options.clip, ema=options.ema,
        emas=options.emas, weighting=args.diffusion.weighting, antithetic=args.diffusion.antithetic,
        label_dropout=args.network.label_dropout, seed=options.seed, max_minutes=run.max_minutes,
        max_skipped=run.max_skipped, save_every=run.save_every, keep=run.keep, keep_every=run.keep_every,
        sample_every=run.sample_every, eval_every=run.eval_every, eval_num=run.eval_num,
        inception=run.inception, record=args.data, origin=None if run.origin is None else str(run.origin),
        compiled=heap.set_pieces_aside,
      )  # fmt: skip
    except Interrupted as error:
      say(f"{error}; the same command goes on from there")
      return 130
    if jax.process_index() == 0 and model.step < run.steps:
      say(f"stopped and saved at step {model.step:,} in {workdir}; the same command goes on from there")
    elif jax.process_index() == 0:
      say(f"done: {model.step:,} steps. Next: python -m experiments.sample --workdir {workdir}")
  return 0


def main(argv: Sequence[str]) -> None:
  """Parses, trains and exits."""
  args = parse(argv)
  share = args.optimisation.batch_size // max(1, args.run.num_processes or 1)
  cli.run(lambda: train(args), batch_size=share)


if __name__ == "__main__":
  main(sys.argv[1:])
