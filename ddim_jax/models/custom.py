"""Networks of your own as models: U-Nets of any shape, and networks of any library."""

import contextlib
import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from ddim_jax.beta_schedules import linear_schedule
from ddim_jax.denoisers import check_signal, clip_x0
from ddim_jax.models import build, tables, unets
from ddim_jax.models.config import UNKNOWN, Config, Data, Diffusion, Network
from ddim_jax.models.model import Model
from ddim_jax.models.networks import adapt
from ddim_jax.parameterisation import EPS, Parameterisation
from ddim_jax.scaling import Scaling, unscaled
from ddim_jax.schedules import Schedule
from ddim_jax.unet import UNet


def from_network(
  network: Any,
  shape: tuple[int, ...],
  *,
  params: Any = None,
  classes: tuple[str, ...] = (),
  conditions: int | Scaling | None = None,
  schedule: Schedule | None = None,
  parameterisation: Parameterisation = EPS,
  clip: bool = True,
) -> Model:
  """A network of yours as a model, to be trained by `ddim_jax.runs.fit`, or with parameters.

  Args:
    network: A `ddim_jax.UNet`, another Flax module, an NNX or Equinox module, what ``haiku.transform``
      returns, or ``(init, apply)``: see `ddim_jax.models.adapt`.
    shape: Of its examples: ``(H, W, C)`` of images, ``(D,)`` of vectors, for a network that takes such.
    params: Its parameters; None takes those that the network holds, or leaves them to training.
    classes: Names of the classes whose numbers it takes as labels; empty if it takes none.
    conditions: Length of the vector that it takes for each image, which `ddim_jax.runs.fit` standardises; or
      how these are scaled, where it is trained; None if it takes none. A `ddim_jax.UNet` says it itself.
    schedule: Noise schedule; linear with T = 1000 by default.
    parameterisation: What it predicts: EPS, X0, V, EDM, FLOW or one of your own.
    clip: Clip predicted images to [-1, 1] when sampling.

  Raises:
    ValueError: If it is none of these, or predicts eps where a schedule leaves nothing of the data.
  """
  schedule = linear_schedule() if schedule is None else schedule
  check_signal(schedule, parameterisation)
  if conditions is None and isinstance(network, UNet):
    conditions = network.condition_size
  model = Model(
    network=network,
    params=adapt(network).params if params is None else params,
    schedule=schedule,
    parameterisation=parameterisation,
    spacing=tables.spacing("uniform", schedule),
    restrict=clip_x0 if clip else lambda denoise, schedule: denoise,
    shape=shape,
    classes=tuple(classes),
    null_label=unets.null_label(network, len(classes)) if isinstance(network, UNet) else None,
    step=0,
    config=Config(Data(UNKNOWN), custom=_name(network)),
    conditions=unscaled(conditions) if isinstance(conditions, int) else conditions,
  )
  return model.replace(config=_described(model))


def _name(network: Any) -> str:
  """What to call a network in messages: the name of its function, or of its class."""
  return getattr(network, "__name__", type(network).__name__)


def _described(model: Model) -> Config:
  """A configuration that builds this network and this noise again, or one that only names it."""
  if isinstance(model.network, UNet):
    predictions = [name for name, meaning in tables.PREDICTIONS.items() if meaning is model.parameterisation]
    candidates = [
      Config(Data(UNKNOWN), _options(model.network), diffusion)
      for predict in predictions
      for name in tables.SCHEDULES
      for zero in (False, True)
      if _is(model.schedule, diffusion := Diffusion(model.schedule.T, name, zero, predict))  # type: ignore
    ]
    for config in candidates[:1]:
      with contextlib.suppress(ValueError):  # an option that a configuration cannot have
        again = build.from_config(config, model.shape, model.classes, conditions=model.conditions)
        if again.network == model.network:
          return config
    try:
      return build.from_pretrained(build.to_pretrained(model)).config
    except ValueError:  # diffusers has no such network either
      pass
  return model.config


def _options(network: UNet) -> Network:
  """The options of a U-Net that have one; others may differ."""
  shared = {f.name for f in dataclasses.fields(Network)} & {f.name for f in dataclasses.fields(network)}
  options = {name: getattr(network, name) for name in shared - {"dtype"}}
  dtype: Any = jnp.dtype(network.dtype).name
  return Network(**options, conditional=network.num_classes is not None, dtype=dtype)


def _is(schedule: Schedule, options: Diffusion) -> bool:
  return np.array_equal(build.named_schedule(options).log_snr, schedule.log_snr)
