"""From a configuration to what it stands for: the one place where strings become functions."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

import ddim_jax
from ddim_jax import data, interop, training
from ddim_jax.data import Source, default_data_dir
from experiments.config import UNKNOWN, Config, Data, Diffusion, Optimisation


def source(config: Data, split: str | None = None) -> Source:
  """The data set, decoded or opened."""
  if config.data == UNKNOWN:
    raise ValueError("the model's files do not say what it was trained on: give --data")
  kind, _, rest = config.data.partition(":")
  split = split or config.split
  if kind == "folder" and rest:
    if config.image_size is None:
      raise ValueError("--image-size is needed with --data folder:PATH")
    return data.load_folder(Path(rest), config.image_size, config.crop)
  if kind == "tfds" and rest:
    return data.load_tfds(rest, split, config.data_dir, config.image_size, config.crop)
  if config.image_size is not None or config.crop is not None:
    raise ValueError(f"--image-size and --crop are for folder: and tfds:, not for {config.data}")
  return data.load_builtin(config.data, split, config.data_dir or default_data_dir())


def model(config: Config, source_channels: int, num_classes: int) -> ddim_jax.UNet:
  """The network for images of so many channels, conditional on so many classes if asked for."""
  options = config.model
  if not 0 <= options.dropout < 1 or not 0 <= options.label_dropout < 1:
    raise ValueError(f"dropout rates must be in [0, 1), got {options.dropout} and {options.label_dropout}")
  if config.imported is not None:
    network = interop.describe(**config.imported).model
    _check_imported(network, source_channels, num_classes)
    return network.clone(dtype=jnp.dtype(options.dtype), remat=options.remat, conv=options.conv)
  if options.conditional and not num_classes:
    raise ValueError("a conditional network (--conditional, or --from one) needs a data set with classes")
  return ddim_jax.UNet(
    channels=options.channels,
    multipliers=options.multipliers,
    blocks=options.blocks,
    attention=options.attention,
    dropout=options.dropout,
    out_channels=source_channels,
    num_classes=num_classes if options.conditional else None,
    groups=options.groups,
    dtype=jnp.dtype(options.dtype),
    remat=options.remat,
    conv=options.conv,
  )


def _check_imported(network: ddim_jax.UNet, channels: int, num_classes: int) -> None:
  if {network.in_channels, network.out_channels} != {channels}:
    raise ValueError(
      f"the imported network goes from {network.in_channels} to {network.out_channels} channels; here images"
      f" have {channels}"
    )
  if network.label_embedding is not None:
    raise ValueError("class_embed_type must be None here: use such a network as a library")
  if network.num_classes is not None and not 1 <= num_classes <= network.num_classes:
    raise ValueError(
      f"the imported network is conditional on {network.num_classes} classes and needs a data set with at"
      f" least one and at most so many, got {num_classes}"
    )


def null_label(model: ddim_jax.UNet, num_classes: int) -> int | None:
  """The label that stands for "no class", or None if the network has none.

  The table of an imported network has one where it is longer than there are classes: its last row.
  """
  if model.num_classes is None:
    return None
  if model.null_class:
    return model.num_classes
  return model.num_classes - 1 if model.num_classes > num_classes else None


def schedule(config: Config) -> ddim_jax.Schedule:
  """The noise schedule."""
  if config.imported is not None:
    return interop.describe(**config.imported).schedule
  options = config.diffusion
  factories: dict[str, Callable[[int], ddim_jax.Schedule]] = {
    "linear": ddim_jax.linear_schedule,
    "cosine": ddim_jax.cosine_schedule,
    "quadratic": ddim_jax.quadratic_schedule,
    "constant": ddim_jax.constant_schedule,
    "sigmoid": ddim_jax.sigmoid_schedule,
    "jsd": ddim_jax.jsd_schedule,
    "warmup": ddim_jax.warmup_schedule,
  }
  made = factories[options.schedule](options.levels)
  return ddim_jax.zero_terminal_snr(made) if options.zero_terminal_snr else made


def parameterisation(config: Config) -> ddim_jax.Parameterisation:
  """What the network predicts."""
  if config.imported is not None:
    return interop.describe(**config.imported).parameterisation
  return {"eps": ddim_jax.EPS, "x0": ddim_jax.X0, "v": ddim_jax.V}[config.diffusion.predict]


Spacing = Literal["uniform", "quadratic", "leading", "trailing", "linspace"]
_SPACINGS = {
  "uniform": ddim_jax.timesteps.uniform,
  "quadratic": ddim_jax.timesteps.quadratic,
  "leading": ddim_jax.timesteps.leading,
  "trailing": ddim_jax.timesteps.trailing,
  "linspace": ddim_jax.timesteps.linspace,
}
AnySpacing = Literal["uniform", "quadratic", "leading", "trailing", "linspace", "log-snr", "karras"]
_REAL_SPACINGS = {"log-snr": ddim_jax.timesteps.log_snr, "karras": ddim_jax.timesteps.karras}


def timesteps(spacing: AnySpacing, schedule: ddim_jax.Schedule, steps: int) -> np.ndarray:
  """The levels to visit: integers, or for log-snr and karras real numbers, which the U-Net takes."""
  if spacing in _REAL_SPACINGS:
    return _REAL_SPACINGS[spacing](schedule, steps)
  return _SPACINGS[spacing](schedule.T, steps)


def losses(config: Config, model: ddim_jax.UNet, num_classes: int) -> Callable[..., jax.Array]:
  """The loss of each example, with dropout and label dropout."""
  weightings: dict[str, Callable[[], training.Weighting | None]] = {
    "none": lambda: None,
    "min_snr": training.min_snr,
    "p2": training.p2,
    "variational": training.variational,
  }
  null = null_label(model, num_classes)

  def network(params, x_t, t, labels, keys):
    dropout_keys, label_keys = training.split_each(keys)
    if null is not None:
      hidden = jax.vmap(lambda key: jax.random.bernoulli(key, config.model.label_dropout))(label_keys)
      labels = jnp.where(hidden, null, labels)
    labels = None if model.num_classes is None else labels
    return model.apply({"params": params}, x_t, t, labels, train=True, keys=dropout_keys)

  weighting = weightings[config.diffusion.weighting]()
  return training.example_losses(network, schedule(config), parameterisation(config), weighting)


def levels(config: Diffusion, T: int) -> training.Levels:
  """How each example's level is drawn from 1 to T."""
  return (training.antithetic_levels if config.antithetic else training.uniform_levels)(T)


def optimizer(config: Optimisation) -> optax.GradientTransformation:
  """The optimiser, with warm-up and clipping."""
  chosen = {"adam": optax.adam, "sgd": optax.sgd}[config.optimizer]
  return training.warmed_up(chosen, config.learning_rate, config.warmup, config.clip)
