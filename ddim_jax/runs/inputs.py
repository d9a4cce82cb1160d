"""What `ddim_jax.runs.fit` is given, as what a run needs: a source, and a model with its record."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from ddim_jax import data
from ddim_jax.models import Model, from_network
from ddim_jax.models.config import UNKNOWN, Data, LevelDistribution, Optimisation
from ddim_jax.runs import objective


def as_source(
  images: data.Source | np.ndarray,
  labels: np.ndarray | None = None,
  classes: Sequence[str] = (),
  conditions: np.ndarray | None = None,
) -> data.Source:
  """Arrays as a source; a source stays as it is.

  Raises:
    ValueError: If the arrays are not as `fit` says, or come with what goes with a source only.
  """
  if isinstance(images, data.Source):
    if labels is not None or classes or conditions is not None:
      raise ValueError("labels, classes and conditions are for arrays: a Source has its own")
    return images
  images = np.asarray(images)
  if labels is not None:
    labels = np.asarray(labels, np.int32)
    classes = tuple(classes) or tuple(str(i) for i in range(int(labels.max(initial=0)) + 1))
    if labels.min(initial=0) < 0 or labels.max(initial=0) >= len(classes):
      raise ValueError(f"labels must be in [0, {len(classes) - 1}], got {labels.min()} to {labels.max()}")
  values = (-1.0, 1.0) if images.dtype.kind == "f" else None
  return data.in_memory("array", images, labels, tuple(classes), values=values, conditions=conditions)


def as_model(model: Any, source: data.Source) -> Model:
  """A model for the images of a source; a network becomes one.

  Raises:
    ValueError: If the model is for images of another shape.
  """
  if not isinstance(model, Model):
    wanted = source.classes if getattr(model, "num_classes", None) is not None else ()
    model = from_network(model, source.shape, classes=wanted)
  found: Model = model
  if found.shape != source.shape:
    raise ValueError(f"the model is for images of {found.shape}, these are {source.shape}")
  return found


def recorded(
  model: Model,
  optimisation: Optimisation,
  record: Data | None,
  *,
  label_dropout: float,
  distribution: LevelDistribution,
  antithetic: bool,
  weighting: Any,
  minimise: Any,
) -> Model:
  """The model with what its checkpoints say of its data and its training; see `fit` for the arguments."""
  config = model.config
  network = dataclasses.replace(config.network, label_dropout=label_dropout)
  diffusion = dataclasses.replace(
    config.diffusion,
    level_distribution=distribution,
    antithetic=antithetic,
    weighting=name_of(weighting or "none"),
  )
  whole = dataclasses.replace(
    config,
    data=Data(UNKNOWN) if record is None else record,
    network=network,
    diffusion=diffusion,
    optimisation=optimisation,
  )
  if minimise is None:
    whole = dataclasses.replace(whole, distilled=0, distilled_by="")
  return model.replace(config=whole)


def name_of(choice: Any) -> Any:
  """What a record calls a choice: its own name, or that of its function."""
  function, _ = objective.unwrapped(choice)
  return function if isinstance(function, str) else getattr(function, "__name__", "custom")


def weight_decay_of(optimizer: Any) -> float:
  """What ``functools.partial(optax.adamw, weight_decay=...)`` says; optax's own default of AdamW is 1e-4."""
  default = 1e-4 if name_of(optimizer) == "adamw" else 0.0
  return float(objective.unwrapped(optimizer)[1].get("weight_decay", default))


def check_batch(batch_size: int, accumulate: int) -> None:
  """Raises ValueError unless all devices can share a batch, each its part in so many parts."""
  devices = jax.device_count()
  if batch_size % (devices * accumulate):
    parts = f" in {accumulate} parts each" if accumulate != 1 else ""
    raise ValueError(
      f"batch_size must be a positive multiple of the {devices} devices{parts}, got {batch_size}"
    )
