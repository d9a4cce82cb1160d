"""What decides a model, as frozen dataclasses: the record that every checkpoint and exported file carries."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from ddim_jax.models.tables import SolverName
from ddim_jax.ranges import Count, PositiveReal, Range, Rate, Seed, Side

LevelDistribution = Literal["uniform", "log_normal", "logit_normal"]
"""How levels are drawn in training, see `Diffusion`."""
RateSchedule = Literal["constant", "cosine", "inverse_sqrt"]
"""What the learning rate does after the warm-up, see `Optimisation`."""
UNKNOWN = ""
"""The data of a model whose files do not say what it was trained on."""


@dataclass(frozen=True)
class Data:
  """What to train on.

  Attributes:
    data: cifar10, fashion_mnist or digits; a folder of pictures, as PATH or folder:PATH; a .npy or .npz file;
      hf:NAME of the Hugging Face hub, or hf:PATH of a folder in its format; tfds:NAME (prepared as
      array_record).
    data_dir: Where TFDS keeps data sets; $TFDS_DATA_DIR or ~/tensorflow_datasets by default.
    split: Split of the data set.
    image_size: To what pictures are resized, in pixels: 64 is a square, 64x96 is 64 high and 96 wide.
    crop: Size of a central part cut out before resizing, in pixels, likewise; the largest by default.
    fit: Pictures of another shape: show their largest central part, or all, with black beside it.
    channels: Of pictures: 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA; other numbers for TIFF files of as many.
    bits: Of pictures: 8 for bytes; 16 keeps 16 bits; 32 keeps the numbers of 16-bit, 32-bit and float files.
    values: What the numbers of arrays and of pictures with more than 8 bits mean: LOW HIGH, which become -1
      and 1 (of 8 bits: black and white), such as 0 4095; minmax of the data; standardise gives each channel
      mean 0 and variance 1. Bytes need none.
    label_column: Column that says the class, of the table beside pictures (CSV, metadata.jsonl), or of hf:;
      by default classes are subfolders, and of hf: the column label.
    condition_columns: Columns of numbers on which to condition, likewise; they are standardised.
    table: The table of a folder of pictures; by default the one that lies in it.
    image_column: Column of the images, of hf:.
    skip_broken: Leave out pictures that cannot be used, and name them, instead of stopping.
    flip: Mirror each image left to right with probability 1/2.
  """

  data: str = "digits"
  data_dir: Path | None = None
  split: str = "train"
  image_size: str | None = None
  crop: str | None = None
  fit: Literal["crop", "pad"] = "crop"
  channels: Annotated[int, Range(1, 1024)] = 3
  bits: Literal[8, 16, 32] = 8
  values: tuple[str, ...] = ()
  label_column: str | None = None
  condition_columns: tuple[str, ...] = ()
  table: Path | None = None
  image_column: str = "image"
  skip_broken: bool = False
  flip: bool = False


@dataclass(frozen=True)
class Network:
  """The U-Net; the defaults are the paper's network for CIFAR-10.

  Attributes:
    channels: Base width.
    multipliers: Width of each resolution in units of channels; the image size halves from one to the next.
    blocks: Residual blocks at each resolution.
    attention: Heights of the feature maps with self-attention.
    dropout: Dropout rate in [0, 1).
    groups: Groups of every GroupNorm.
    conditional: Condition on the data set's classes.
    label_dropout: Fraction of labels hidden in training a conditional model, for classifier-free guidance.
    dtype: Type of the computation; parameters stay float32.
    remat: Recompute blocks in the backward pass: less memory, more time.
    conv: What computes the 3x3 convolutions, with the same results up to rounding: XLA's own algorithm,
      Winograd's with a quarter of the products, or whichever is expected to be faster on this machine.
  """

  channels: Annotated[int, Range(4, 65_536)] = 128
  multipliers: tuple[Annotated[int, Range(1, 1024)], ...] = (1, 2, 2, 2)
  blocks: Annotated[int, Range(1, 1024)] = 2
  attention: tuple[Side, ...] = (16,)
  dropout: Rate = 0.1
  groups: Side = 32
  conditional: bool = False
  label_dropout: Rate = 0.1
  dtype: Literal["float32", "bfloat16"] = "float32"
  remat: bool = False
  conv: Literal["auto", "direct", "winograd"] = "auto"


@dataclass(frozen=True)
class Diffusion:
  """The noise and the loss.

  Attributes:
    levels: Number of noise levels T.
    schedule: Noise schedule.
    zero_terminal_snr: Rescale the schedule so that nothing is left of the data at level T (then predict
      anything but eps).
    predict: What the network predicts.
    weighting: Weighting of the loss by level.
    spacing: Which levels S steps visit unless a program asks for others; uniform by default, or what another
      project's files say.
    solver: Which solver draws unless a program asks for another; ddim by default, or what another project's
      files say.
    level_distribution: How levels are drawn in training: uniformly from 1 to T; or as real numbers with
      log(sigma / alpha) normal, EDM's way (mean -1.2, deviation 1.2) or that of flow matching (mean 0,
      deviation 1).
    antithetic: Draw levels in pairs t and T + 1 - t.
  """

  levels: Annotated[int, Range(1, 1_000_000)] = 1000
  schedule: Literal[
    "linear", "cosine", "quadratic", "constant", "sigmoid", "jsd", "warmup", "edm", "flow"
  ] = "linear"
  zero_terminal_snr: bool = False
  predict: Literal["eps", "x0", "v", "edm", "flow"] = "eps"
  weighting: Literal["none", "min_snr", "p2", "variational"] = "none"
  spacing: Literal["uniform", "quadratic", "leading", "trailing", "linspace"] | None = None
  solver: SolverName | None = None
  level_distribution: LevelDistribution = "uniform"
  antithetic: bool = False


@dataclass(frozen=True)
class Optimisation:
  """How to train; the defaults are the paper's for CIFAR-10.

  Attributes:
    optimizer: Adam is the paper's; adamw takes a weight decay; plain gradient descent is for comparisons.
    batch_size: Size of the global batch, over all devices and hosts.
    learning_rate: Learning rate after the warm-up; recorded as 0 where it was a schedule of its own.
    warmup: Updates over which the learning rate rises from 0.
    learning_rate_schedule: What the learning rate does after the warm-up: it stays, falls along half a cosine
      to 0 at the last of the updates asked for, or falls as sqrt(warmup / updates).
    weight_decay: Decoupled weight decay of adamw, times the learning rate.
    clip: Largest global norm of a gradient.
    ema: Decay of the EMA of the parameters, in [0, 1).
    emas: Decays of further EMAs, to be chosen from after training.
    seed: Decides initialisation, noise, order and flips.
  """

  optimizer: Literal["adam", "adamw", "sgd"] = "adam"
  batch_size: Annotated[int, Range(1, 1_000_000)] = 128
  learning_rate: PositiveReal = 2e-4
  warmup: Count = 5000
  learning_rate_schedule: RateSchedule = "constant"
  weight_decay: Annotated[float, Range(0, 1)] = 0.0
  clip: PositiveReal = 1.0
  ema: Rate = 0.9999
  emas: tuple[Rate, ...] = ()
  seed: Seed = 0


@dataclass(frozen=True)
class Config:
  """Everything that decides which model comes out; saved in every checkpoint.

  Attributes:
    data: What it is trained on.
    network: The network; of one from another project, what its files leave open.
    diffusion: The noise and the loss; the same.
    optimisation: How it is trained.
    imported: ``{"config": ..., "scheduler": ...}``, the network and the noise in the words of diffusers, if
      they came from another project. Only `ddim_jax.models.build` looks at it.
    custom: Name of a network that this project cannot build again, or "".
    distilled: Steps that it was distilled for; 0 if it was not.
    distilled_by: What was minimised for that, and how many steps of the teacher are one of its own.
  """

  data: Data = Data()
  network: Network = Network()
  diffusion: Diffusion = Diffusion()
  optimisation: Optimisation = Optimisation()
  imported: dict[str, Any] | None = None
  custom: str = ""
  distilled: int = 0
  distilled_by: str = ""
