"""Configuration of a run: frozen dataclasses, and the one place where strings become functions."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

import ddim_jax
from ddim_jax import data, training
from ddim_jax.data import Source
from ddim_jax.data.sources import default_data_dir


@dataclass(frozen=True)
class Data:
  """What to train on."""

  data: str = "digits"
  """cifar10, fashion_mnist or digits; folder:PATH; tfds:NAME (prepared as array_record)."""
  data_dir: Path | None = None
  """Where TFDS keeps data sets; $TFDS_DATA_DIR or ~/tensorflow_datasets by default."""
  split: str = "train"
  """Split of the data set."""
  image_size: int | None = None
  """Side of the square to which images of folder: and tfds: are resized, in pixels."""
  crop: int | None = None
  """Side of a central square cut out before resizing, in pixels; the largest by default."""
  flip: bool = False
  """Mirror each image left to right with probability 1/2."""


@dataclass(frozen=True)
class Model:
  """The U-Net; the defaults are the paper's network for CIFAR-10."""

  channels: int = 128
  """Base width."""
  multipliers: tuple[int, ...] = (1, 2, 2, 2)
  """Width of each level in units of channels; the image size halves between levels."""
  blocks: int = 2
  """Residual blocks a level."""
  attention: tuple[int, ...] = (16,)
  """Heights of the feature maps with self-attention."""
  dropout: float = 0.1
  """Dropout rate in [0, 1)."""
  groups: int = 32
  """Groups of every GroupNorm."""
  conditional: bool = False
  """Condition on the data set's classes."""
  label_dropout: float = 0.1
  """Fraction of labels hidden in training a conditional model, for classifier-free guidance."""
  dtype: Literal["float32", "bfloat16"] = "float32"
  """Type of the computation; parameters stay float32."""
  remat: bool = False
  """Recompute blocks in the backward pass: less memory, more time."""


@dataclass(frozen=True)
class Diffusion:
  """The noise and the loss."""

  levels: int = 1000
  """Number of noise levels T."""
  schedule: Literal["linear", "cosine", "quadratic", "constant", "sigmoid", "jsd", "warmup"] = "linear"
  """Noise schedule."""
  zero_terminal_snr: bool = False
  """Rescale the schedule so that nothing is left of the data at level T (then predict v or x0)."""
  predict: Literal["eps", "x0", "v"] = "eps"
  """What the network predicts."""
  weighting: Literal["none", "min_snr", "p2", "variational"] = "none"
  """Weighting of the loss by level."""
  antithetic: bool = False
  """Draw levels in pairs t and T + 1 - t."""


@dataclass(frozen=True)
class Optimisation:
  """How to train; the defaults are the paper's for CIFAR-10."""

  optimizer: Literal["adam", "sgd"] = "adam"
  """Adam is the paper's; plain gradient descent is for comparisons."""
  batch_size: int = 128
  """Size of the global batch, over all devices and hosts."""
  learning_rate: float = 2e-4
  """Learning rate after the warm-up."""
  warmup: int = 5000
  """Steps over which the learning rate rises from 0."""
  clip: float = 1.0
  """Largest global norm of a gradient."""
  ema: float = 0.9999
  """Decay of the average of the parameters, in [0, 1)."""
  emas: tuple[float, ...] = ()
  """Decays of further averages, to be chosen from after training (--ema of the other programs)."""
  seed: int = 0
  """Decides initialisation, noise, order and flips."""


@dataclass(frozen=True)
class Config:
  """Everything that decides which model comes out; saved in every checkpoint."""

  data: Data = Data()
  model: Model = Model()
  diffusion: Diffusion = Diffusion()
  optimisation: Optimisation = Optimisation()


_SECTIONS = {"data": Data, "model": Model, "diffusion": Diffusion, "optimisation": Optimisation}


def to_json(config: Config) -> dict[str, Any]:
  """JSON values; paths become strings."""
  values = dataclasses.asdict(config)
  values["data"]["data_dir"] = config.data.data_dir and str(config.data.data_dir)
  return values


def from_json(values: dict[str, Any]) -> Config:
  """The inverse of `to_json`; a field younger than the checkpoint has its default.

  Raises:
    ValueError: If a section or field is unknown.
  """
  sections = {}
  for name, kind in _SECTIONS.items():
    found = values.get(name, {})
    if unknown := set(found) - {field.name for field in dataclasses.fields(kind)}:
      raise ValueError(f"the checkpoint is of a newer version: {name} has {sorted(unknown)}")
    found = {key: tuple(v) if isinstance(v, list) else v for key, v in found.items()}
    if found.get("data_dir"):
      found["data_dir"] = Path(found["data_dir"])
    sections[name] = kind(**found)
  return Config(**sections)


def differences(saved: Config, asked: Config) -> list[str]:
  """Fields that decide the model and differ, as ``name: saved, asked``; where the data lies does not."""
  old, new = to_json(saved), to_json(asked)
  return [
    f"{name}: {old[section][name]!r} in the checkpoint, {value!r} asked for"
    for section in _SECTIONS
    for name, value in new[section].items()
    if name != "data_dir" and old[section][name] != value
  ]


def build_source(config: Data, split: str | None = None) -> Source:
  """The data set, decoded or opened."""
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


def build_model(config: Model, source_channels: int, num_classes: int) -> ddim_jax.UNet:
  """The network for images of so many channels, conditional on so many classes if asked for."""
  if config.conditional and not num_classes:
    raise ValueError("--conditional needs a data set with classes")
  if not 0 <= config.dropout < 1 or not 0 <= config.label_dropout < 1:
    raise ValueError(f"dropout rates must be in [0, 1), got {config.dropout} and {config.label_dropout}")
  return ddim_jax.UNet(
    channels=config.channels,
    multipliers=config.multipliers,
    blocks=config.blocks,
    attention=config.attention,
    dropout=config.dropout,
    out_channels=source_channels,
    num_classes=num_classes if config.conditional else None,
    groups=config.groups,
    dtype=jnp.dtype(config.dtype),
    remat=config.remat,
  )


def build_schedule(config: Diffusion) -> ddim_jax.Schedule:
  """The noise schedule."""
  factories: dict[str, Callable[[int], ddim_jax.Schedule]] = {
    "linear": ddim_jax.linear_schedule,
    "cosine": ddim_jax.cosine_schedule,
    "quadratic": ddim_jax.quadratic_schedule,
    "constant": ddim_jax.constant_schedule,
    "sigmoid": ddim_jax.sigmoid_schedule,
    "jsd": ddim_jax.jsd_schedule,
    "warmup": ddim_jax.warmup_schedule,
  }
  schedule = factories[config.schedule](config.levels)
  return ddim_jax.zero_terminal_snr(schedule) if config.zero_terminal_snr else schedule


PARAMETERISATIONS = {"eps": ddim_jax.EPS, "x0": ddim_jax.X0, "v": ddim_jax.V}
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


def build_timesteps(spacing: AnySpacing, schedule: ddim_jax.Schedule, steps: int) -> np.ndarray:
  """The levels to visit: integers, or for log-snr and karras real numbers, which the U-Net takes."""
  if spacing in _REAL_SPACINGS:
    return _REAL_SPACINGS[spacing](schedule, steps)
  return _SPACINGS[spacing](schedule.T, steps)


def build_loss(config: Config, model: ddim_jax.UNet) -> Callable[..., jax.Array]:
  """The loss of one example, with dropout and label dropout."""
  schedule = build_schedule(config.diffusion)
  weightings: dict[str, Callable[[], training.Weighting | None]] = {
    "none": lambda: None,
    "min_snr": training.min_snr,
    "p2": training.p2,
    "variational": training.variational,
  }

  def network(params, x_t, t, labels, key):
    dropout_key, label_key = jax.random.split(key)
    if model.num_classes is not None:
      hidden = jax.random.bernoulli(label_key, config.model.label_dropout, labels.shape)
      labels = jnp.where(hidden, model.num_classes, labels)
    labels = None if model.num_classes is None else labels
    return model.apply({"params": params}, x_t, t, labels, train=True, rngs={"dropout": dropout_key})

  return training.example_loss(
    network, schedule, PARAMETERISATIONS[config.diffusion.predict], weightings[config.diffusion.weighting]()
  )


def build_levels(config: Diffusion) -> training.Levels:
  """How each example's level is drawn."""
  return (training.antithetic_levels if config.antithetic else training.uniform_levels)(config.levels)


def build_optimizer(config: Optimisation) -> optax.GradientTransformation:
  """The optimiser, with warm-up and clipping."""
  optimizer = {"adam": optax.adam, "sgd": optax.sgd}[config.optimizer]
  return training.warmed_up(optimizer, config.learning_rate, config.warmup, config.clip)
