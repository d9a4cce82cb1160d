"""What decides a model, as frozen dataclasses: the record that every checkpoint and exported file carries."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

UNKNOWN = ""
"""The data of a model whose files do not say what it was trained on."""


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
class Network:
  """The U-Net; the defaults are the paper's network for CIFAR-10."""

  channels: int = 128
  """Base width."""
  multipliers: tuple[int, ...] = (1, 2, 2, 2)
  """Width of each resolution in units of channels; the image size halves from one to the next."""
  blocks: int = 2
  """Residual blocks at each resolution."""
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
  conv: Literal["auto", "direct", "winograd"] = "auto"
  """What computes the 3x3 convolutions, with the same results up to rounding: XLA's own algorithm, Winograd's
  with a quarter of the products, or whichever is expected to be faster on this machine."""


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
  spacing: Literal["uniform", "quadratic", "leading", "trailing", "linspace"] | None = None
  """Which levels S steps visit unless a program asks for others; uniform by default, or what the files of
  another project say."""
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
  """Learning rate after the warm-up; recorded as 0 where it was a schedule of its own."""
  warmup: int = 5000
  """Updates over which the learning rate rises from 0."""
  clip: float = 1.0
  """Largest global norm of a gradient."""
  ema: float = 0.9999
  """Decay of the EMA of the parameters, in [0, 1)."""
  emas: tuple[float, ...] = ()
  """Decays of further EMAs, to be chosen from after training."""
  seed: int = 0
  """Decides initialisation, noise, order and flips."""


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
  """

  data: Data = Data()
  network: Network = Network()
  diffusion: Diffusion = Diffusion()
  optimisation: Optimisation = Optimisation()
  imported: dict[str, Any] | None = None
  custom: str = ""
