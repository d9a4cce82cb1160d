"""Training on images of noise as `ddim_jax.runs` does it, for benchmarks: no data set is needed."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from ddim_jax import data, training
from ddim_jax.commands import presets
from ddim_jax.models import build
from ddim_jax.models.config import Network
from ddim_jax.runs import evaluation, objective, update
from ddim_jax.runs.start import start

SHAPES = {
  "cifar10": (32, 32, 3), "cifar10_small": (32, 32, 3), "celeba64": (64, 64, 3),
  "fashion_mnist": (28, 28, 1), "digits": (8, 8, 1), "folder": (64, 64, 3),
}  # fmt: skip
"""Shape of an image, by preset."""


class Training(NamedTuple):
  """The parts of a training loop.

  Attributes:
    state: Before the first step.
    make_batch: ``(step) -> (images, labels)``, split over the local devices.
    update: ``(state, batch) -> (state, metrics)``, compiled at its first call; the state is donated.
  """

  state: training.TrainState
  make_batch: Callable[[int], tuple[np.ndarray, np.ndarray]]
  update: Callable[..., tuple[training.TrainState, dict[str, Any]]]


def prepare(preset: str, batch_size: int, images: int = 512, network: Network | None = None) -> Training:
  """The training of a preset's unconditional network, or of another, on so many images."""
  found, shape = presets.PRESETS[preset](), SHAPES[preset]
  source = data.in_memory("noise", np.random.default_rng(0).integers(0, 256, (images, *shape), np.uint8))
  settings = found if network is None else dataclasses.replace(found, network=network)
  options, model = found.optimisation, build.from_config(settings.config, shape)
  optimizer = objective.optimizer(optax.adam, options.learning_rate, options.warmup, options.clip)
  step = update.pmapped_update(
    objective.losses(model), objective.levels(model.schedule, antithetic=found.diffusion.antithetic),
    optimizer, training.warm_decay(options.ema), level_edges=evaluation.level_edges(model.schedule.T),
  )  # fmt: skip
  key, flags = jax.random.key(0), np.zeros(jax.local_device_count(), np.int32)
  return Training(
    update.on_every_device(start(model, optimizer)),
    partial(update.local_batch, source, batch_size=batch_size, flip=found.data.flip),
    lambda state, batch: step(state, key, *batch, flags),
  )
