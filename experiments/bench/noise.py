"""Training on images of noise as `experiments.loop` does it, for benchmarks: no data set is needed."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from ddim_jax import data, training
from ddim_jax.models import build
from ddim_jax.runs import objective
from experiments import loop, presets

SHAPES = {
  "cifar10": (32, 32, 3), "celeba64": (64, 64, 3), "fashion_mnist": (28, 28, 1), "digits": (8, 8, 1),
  "folder": (64, 64, 3),
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


def prepare(preset: str, batch_size: int, images: int = 512) -> Training:
  """The training of a preset's unconditional network on so many images."""
  found, shape = presets.PRESETS[preset](), SHAPES[preset]
  source = data.in_memory("noise", np.random.default_rng(0).integers(0, 256, (images, *shape), np.uint8))
  settings = dataclasses.replace(
    found, optimisation=dataclasses.replace(found.optimisation, batch_size=batch_size)
  )
  model, optimizer = build.from_config(settings.config, shape), objective.optimizer(settings.optimisation)
  update = loop.pmapped_update(settings, model, optimizer)
  key, flags = jax.random.key(0), np.zeros(jax.local_device_count(), np.int32)
  return Training(
    loop.on_every_device(loop.initial_state(model, optimizer, 0)),
    partial(loop.local_batch, source, settings),
    lambda state, batch: update(state, key, *batch, flags),
  )
