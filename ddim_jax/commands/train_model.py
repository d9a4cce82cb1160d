"""``ddim train PRESET``: trains a model, or goes on with a run."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from ddim_jax import checkpoints, ranges
from ddim_jax.commands import cli, presets
from ddim_jax.commands.presets import Args
from ddim_jax.commands.train_options import OPTIONS, parse
from ddim_jax.console import say
from ddim_jax.cpu import heap
from ddim_jax.data import Source
from ddim_jax.models import Model, build, datasets, load
from ddim_jax.models.config import Config, Network
from ddim_jax.models.loading import is_run
from ddim_jax.models.tables import named
from ddim_jax.places import for_checkpoints, local
from ddim_jax.runs import Interrupted, connected, fit
from ddim_jax.runs.start import standardised
from ddim_jax.scaling import from_json
from ddim_jax.unet.arguments import check_arguments

Saved = dict[str, Any] | None
"""What the checkpoint of the run that goes on says beside its arrays; None for a new run."""
OPTIMIZERS: dict[str, Callable[[float], Any]] = {
  "adam": lambda decay: optax.adam,
  "adamw": lambda decay: partial(optax.adamw, weight_decay=decay),
  "sgd": lambda decay: optax.sgd,
}
"""Name -> optimiser of a weight decay."""


def completed(args: Args, saved: Saved = None) -> Args:
  """The options with what the preset "folder" leaves open of the data: the size of the pictures.

  A run that goes on keeps its own, whatever machine it has come to.
  """
  data = args.data
  datasets.check(data)
  kind, name = datasets.kind_of(data.data)
  if kind == "folder":
    data = dataclasses.replace(data, data=f"folder:{local(name, 'data')}")
  if args.suited and data.image_size is None and kind in ("folder", "hf", "tfds"):
    before = _before(saved)
    usual = "32" if jax.default_backend() == "cpu" else "64"
    size = usual if before is None else before.data.image_size
    data = dataclasses.replace(data, image_size=size)
  return dataclasses.replace(args, data=data)


def fitted(args: Args, shape: tuple[int, ...], saved: Saved = None) -> Args:
  """The options with a network for images of that shape, where the preset "folder" leaves it open.

  A run that goes on keeps its own.
  """
  open_fields = presets.FITTED
  chosen_by_user = any(getattr(args.network, f) != getattr(Network(), f) for f in open_fields)
  if not args.suited or chosen_by_user or len(shape) != 3:
    return args
  before = _before(saved)
  found = (
    presets.suited(shape[0], jax.default_backend() != "cpu", shape[1]) if before is None else before.network
  )
  network = dataclasses.replace(args.network, **{f: getattr(found, f) for f in open_fields})
  return dataclasses.replace(args, network=network)


def _before(saved: Saved) -> Config | None:
  """The configuration of the run that goes on, if one does."""
  return None if saved is None else build.from_json(saved["config"])


def opened(args: Args, saved: Saved = None) -> Source:
  """The data: what numbers mean is as a run that goes on has it, if that was asked for in the same words."""
  workdir, before, scaling = for_checkpoints(args.run.workdir), _before(saved), None
  if saved is not None and before is not None and before.data.values == args.data.values:
    scaling = from_json(saved.get("scaling"))
  cache = (args.run.cache_dir or workdir.absolute().parent / "cache") if args.run.cache else None
  with datasets.bar(jax.process_index() == 0) as progress:
    return datasets.open_data(args.data, scaling=scaling, cache=cache, progress=progress)


def check_without_data(config: Config) -> None:
  """Refuses what cannot be trained on any images; decoding a folder first may take minutes.

  Raises:
    ValueError: If widths, levels and what is predicted do not go together.
  """
  network = dataclasses.replace(config.network, blocks=1, attention=(), conditional=False)
  side = 2 ** max(0, len(network.multipliers) - 1)
  model = build.from_config(dataclasses.replace(config, network=network), (side, side, 1))
  check_arguments(model.network, np.zeros((1, side, side, 1), np.float32), 1)


def starting_model(args: Args, source: Source, saved: Saved) -> Model:
  """The model that a run begins with, or goes on with: then the files given with --from may be gone.

  Raises:
    ValueError: If a run that goes on began from other weights, or from none.
  """
  origin, config = args.run.origin, args.config
  if saved is not None:
    began = saved.get("from")
    if (None if origin is None else origin) != began:
      said = "was not given a --from" if began is None else f"began with --from {began}"
      asked_for = "without it" if origin is None else f"with --from {origin}"
      raise ValueError(f"this run {said} and cannot go on {asked_for}")
    if origin is not None:
      config = build.adopt(config, build.from_json(saved["config"]))
    conditions = from_json(saved.get("conditions"))
    return build.from_config(config, source.shape, source.classes, conditions=conditions)
  conditions = None if source.conditions is None else standardised(source.conditions)
  if origin is None:
    return build.from_config(config, source.shape, source.classes, conditions=conditions)
  given = load(origin, size=None if is_run(Path(origin)) else source.shape[0], flags=args.run.flags)
  config = build.adopt(config, given.config)
  return build.from_config(config, source.shape, source.classes, given.params, conditions=conditions)


def train(args: Args) -> int:
  """Trains until ``args.run.steps`` or until told to stop; returns the exit status."""
  for section in (args.run, args.data, args.network, args.diffusion, args.optimisation):
    ranges.check_all(section)
  run, chosen = args.run, args.optimisation
  if chosen.weight_decay and chosen.optimizer != "adamw":
    raise ValueError(
      f"weight_decay goes with the optimizer adamw, got {chosen.weight_decay} with {chosen.optimizer}"
    )
  if run.flags is not None and run.origin is None:
    raise ValueError(f"flags goes with from, whose file they describe, got {run.flags!r} alone")
  workdir = for_checkpoints(run.workdir)
  with connected(  # before anything is asked of JAX
    workdir, distributed=run.distributed, coordinator=run.coordinator, num_processes=run.num_processes,
    process_id=run.process_id,
  ):  # fmt: skip
    saved = checkpoints.newest_config(workdir / "checkpoints")
    args = completed(args, saved)
    if run.origin is None:
      check_without_data(args.config)
    source = opened(args, saved)
    args = fitted(args, source.shape, saved)
    begun = starting_model(args, source, saved)
    try:
      model = fit(
        workdir, begun, source, steps=run.steps, batch_size=chosen.batch_size,
        flip=args.data.flip, optimizer=named(OPTIMIZERS, chosen.optimizer, "optimizer")(chosen.weight_decay),
        learning_rate=chosen.learning_rate, warmup=chosen.warmup,
        learning_rate_schedule=chosen.learning_rate_schedule, clip=chosen.clip, ema=chosen.ema,
        emas=chosen.emas, weighting=args.diffusion.weighting,
        level_distribution=args.diffusion.level_distribution, antithetic=args.diffusion.antithetic,
        label_dropout=args.network.label_dropout, seed=chosen.seed, max_minutes=run.max_minutes,
        max_skipped=run.max_skipped, save_every=run.save_every, keep=run.keep, keep_every=run.keep_every,
        sample_every=run.sample_every, eval_every=run.eval_every, eval_num=run.eval_num,
        inception=run.inception, record=args.data, origin=run.origin,
        compiled=heap.set_pieces_aside,
      )  # fmt: skip
    except Interrupted as error:
      say(f"{error}; the same command goes on from there")
      return 130
    if jax.process_index() == 0 and model.step < run.steps:
      say(f"stopped and saved at step {model.step:,} in {workdir}; the same command goes on from there")
    elif jax.process_index() == 0:
      say(f"done: {model.step:,} steps. Next: ddim sample {workdir}")
  return 0


def main(argv: Sequence[str]) -> None:
  """Parses, trains and exits."""
  args = parse(argv)
  share = args.optimisation.batch_size // max(1, args.run.num_processes or 1)
  cli.run(lambda: train(args), batch_size=share, options=OPTIONS - {"channels"})
