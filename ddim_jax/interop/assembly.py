"""Weights and configurations, read from whatever files, put together."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ddim_jax.denoisers import check_signal
from ddim_jax.interop import adm_configs, names
from ddim_jax.interop.configs import labels_as_they_are, to_unet
from ddim_jax.interop.pretrained import Pretrained
from ddim_jax.interop.schedulers import from_scheduler
from ddim_jax.unet import UNet
from ddim_jax.unet.embedding import width


def parameter_shapes(model: UNet) -> Any:
  """The parameter tree with a shape at each leaf."""
  side = 2 ** (len(model.multipliers) - 1)
  x = jnp.zeros((1, side, side, model.input_channels), jnp.float32)
  labels = None
  if model.label_embedding is not None:
    labels = jnp.zeros((1, width(model)) if model.label_embedding is labels_as_they_are else (1,))
  elif model.num_classes is not None:
    labels = jnp.zeros((1,), jnp.int32)
  one = jnp.ones((), jnp.int32)
  return jax.eval_shape(lambda: model.init(jax.random.key(0), x, one, labels))["params"]


def describe(
  config: dict[str, Any], scheduler: dict[str, Any], variables: dict[str, Any] | None = None
) -> Pretrained:
  """A network as two configurations say; without weights its ``variables`` are empty.

  Args:
    config: Of a UNet2DModel; or, with its ``_class_name``, of a UNetModel of guided-diffusion.
    scheduler: Of a diffusers scheduler, see `schedulers.from_scheduler`.
    variables: ``{"params": ...}``, if they are known.

  Raises:
    ValueError: If a setting is not supported, or eps is predicted from noise without signal.
  """
  of_adm = config.get("_class_name") == adm_configs.CLASS
  model, config = adm_configs.to_unet(config) if of_adm else to_unet(config)
  both = model.out_channels == 2 * model.input_channels
  pretrained: Pretrained
  variance = (lambda x_t, t: pretrained.variance()(x_t, t)) if both else None
  sampling = from_scheduler(scheduler, variance)
  inputs = adm_configs.inputs_of(config, sampling.inputs) if of_adm else sampling.inputs
  pretrained = Pretrained(model, variables or {}, *sampling[:5], config, sampling.config, inputs)
  check_signal(pretrained.schedule, pretrained.parameterisation)
  return pretrained


def assemble(
  read: Callable[[], dict[str, np.ndarray]],
  config: dict[str, Any],
  scheduler: dict[str, Any],
  rename: names.Rename,
  source: str,
) -> Pretrained:
  """A network ready to use.

  Args:
    read: Gives the arrays by their names; called once the settings are accepted.
    config: As of `describe`, and so ``scheduler``.
    scheduler: Of a diffusers scheduler.
    rename: Their name of a layer, such as `names.to_diffusers`.
    source: What to call the weights in messages.

  Raises:
    ValueError: If a setting is not supported, or weights and configuration disagree.
  """
  described = describe(config, scheduler)
  model = described.model
  params = names.convert(read(), parameter_shapes(model), len(model.multipliers), rename, source)
  return describe(config, scheduler, {"params": params})
