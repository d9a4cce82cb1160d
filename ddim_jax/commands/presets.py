"""Presets: a starting point for every command line, with its command and its result."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from ddim_jax.models.config import Config, Data, Diffusion, Network, Optimisation
from ddim_jax.ranges import Count, Positive, PositiveReal, Several


@dataclass(frozen=True)
class Run:
  """Where and how long. Only --from changes what is learned.

  Attributes:
    workdir: Folder of the run: checkpoints, metrics, samples. A run that is already there goes on.
    origin: Start from these weights instead of random ones: folder of a run, .safetensors file, folder or hub
      id of diffusers, .ckpt, .pth or .pt file of the original DDIM code, improved-diffusion or
      guided-diffusion, or a model that comes along. Network, noise levels and what is predicted are then
      theirs, whatever the options say, and the EMA begins with their weights. Once the run has a checkpoint,
      they are not needed any more.
    flags: Of a .pt file to start from of guided-diffusion that is no published one: options that it was
      trained with, such as "num_head_channels 64 image_size 256".
    steps: Train until this many updates.
    max_minutes: Stop and save after this time, compilation included; the same command goes on from there.
    save_every: Updates between checkpoints.
    keep: Newest checkpoints to keep.
    keep_every: Also keep, for ever, checkpoints whose step is a multiple of this.
    sample_every: Updates between grids of samples in WORKDIR/samples; 0 for none.
    eval_every: Updates between evaluations, whose best step is kept; 0 for none.
    eval_num: Images an evaluation draws, with 50 steps; distances of different numbers cannot be compared.
    inception: Weights of the FID's Inception network, for evaluation; without, EfficientNet-Lite0 (needs the
      extra efficientnet), or for grey images a small classifier.
    max_skipped: Updates that may be left out because loss or gradient was not finite, before the run stops.
    distributed: Train on several hosts; on TPU pods and Slurm they find each other.
    coordinator: ADDRESS:PORT of process 0, where hosts are not found by themselves; implies --distributed.
    num_processes: Number of processes, with --coordinator.
    process_id: Number of this process, from 0, with --coordinator.
    cache: Keep decoded pictures, so that a next start decodes nothing.
    cache_dir: Where; by default in the folder cache beside WORKDIR, where other runs find them, too.
  """

  workdir: Path
  origin: Annotated[str | None, tyro.conf.arg(name="from")] = None
  flags: str | None = None
  steps: Positive = 800_000
  max_minutes: PositiveReal | None = None
  save_every: Positive = 5_000
  keep: Positive = 2
  keep_every: Positive | None = None
  sample_every: Count = 5_000
  eval_every: Count = 0
  eval_num: Several = 1_000
  inception: Path | None = None
  max_skipped: Count = 0
  distributed: bool = False
  coordinator: str | None = None
  num_processes: Positive | None = None
  process_id: Count | None = None
  cache: bool = True
  cache_dir: Path | None = None


@dataclass(frozen=True)
class Args:
  """Trains a diffusion model, or goes on with the run in --workdir.

  Attributes:
    suited: Whether image size and network are chosen to suit the machine where the options leave them open.
  """

  run: Run
  data: Data = field(default_factory=Data)
  network: Network = field(default_factory=Network)
  diffusion: Diffusion = field(default_factory=Diffusion)
  optimisation: Optimisation = field(default_factory=Optimisation)
  suited: tyro.conf.Suppress[bool] = False

  @property
  def config(self) -> Config:
    """What decides the model."""
    return Config(self.data, self.network, self.diffusion, self.optimisation)


def cifar10() -> Args:
  """The paper's recipe on CIFAR-10: 35.7 M parameters, 800,000 steps of 128 images.

  ddim train cifar10 --workdir runs/cifar10. Result: not yet measured.
  """
  return Args(Run(Path("runs/cifar10")), Data("cifar10", flip=True))


def cifar10_small() -> Args:
  """A small conditional network on CIFAR-10, for minutes to hours on one GPU: 9.0 M parameters, predicts v.

  ddim train cifar10_small --dtype bfloat16 --workdir runs/cifar10_small. Result: not yet measured.
  """
  return Args(
    Run(Path("runs/cifar10_small"), steps=200_000, save_every=2_000),
    Data("cifar10", flip=True),
    Network(channels=64, dropout=0.0, conditional=True),
    Diffusion(schedule="cosine", predict="v", antithetic=True),
    Optimisation(batch_size=256, learning_rate=1e-3, warmup=1_000, ema=0.9995),
  )


def celeba64() -> Args:
  """The paper's network for CelebA at 64x64, on a data set prepared with TFDS.

  ddim train celeba64 --workdir runs/celeba64. Result: not yet measured.
  """
  return Args(
    Run(Path("runs/celeba64"), steps=500_000),
    Data("tfds:celeb_a", image_size="64", crop="140", flip=True),
    Network(multipliers=(1, 2, 2, 2, 4)),
  )


def fashion_mnist() -> Args:
  """A small network on Fashion-MNIST at 28x28: 1.8 M parameters, for two CPU cores.

  ddim train fashion_mnist --workdir runs/fashion_mnist. Result: docs/results.md.
  """
  return Args(
    Run(Path("runs/fashion_mnist"), steps=20_000, save_every=250, sample_every=1000, keep_every=5000),
    Data("fashion_mnist"),
    Network(channels=32, multipliers=(1, 2, 3), blocks=1, attention=(7,), dropout=0.0, groups=8),
    Diffusion(antithetic=True),
    Optimisation(batch_size=64, learning_rate=6e-4, warmup=500, ema=0.9995),
  )


def digits() -> Args:
  """A small network on scikit-learn's 8x8 digits: 0.7 M parameters, minutes on two CPU cores.

  ddim train digits --workdir runs/digits. Result: docs/results.md (make demo).
  """
  return Args(
    Run(Path("runs/digits"), steps=1_400, save_every=250, sample_every=500),
    Data("digits"),
    Network(channels=32, multipliers=(1, 2), blocks=1, attention=(4,), dropout=0.0, groups=8),
    Diffusion(schedule="cosine", predict="v", antithetic=True),
    Optimisation(batch_size=128, learning_rate=2e-3, warmup=50, ema=0.995),
  )


def folder() -> Args:
  """Your own data: a folder of pictures, whose subfolders are classes; a .npy or .npz file; hf:NAME.

  ddim train folder PHOTOS --workdir runs/mine, or with any of these in its place: ddim train scans.npy. The
  network fits the size of the images (--image-size) and the machine, unless you say what it is to be.
  Result: depends on the data.
  """
  return Args(Run(Path("runs/folder")), Data("folder:images"), suited=True)


FITTED = ("channels", "multipliers", "blocks", "attention", "dropout", "groups")
"""Fields of the network that `suited` decides."""


def suited(size: int, accelerated: bool, width: int | None = None) -> Network:
  """A network for images of so many pixels: the paper's, or on a CPU a small one.

  Args:
    size: Height of the images.
    width: The same as the height by default.
    accelerated: Whether there is a TPU or GPU.

  Raises:
    ValueError: If the size cannot be halved often enough.
  """
  halvings, sides = 0, (size, width or size)
  least = 4 if accelerated else 7
  while all(side % 2 ** (halvings + 1) == 0 and side >> (halvings + 1) >= least for side in sides):
    halvings += 1
  lowest = size >> halvings
  if lowest > 32:
    near = size // 32 * 32
    raise ValueError(f"image_size must be a multiple of a larger power of 2, such as {near}, got {size}")
  if accelerated:
    multipliers = {0: (1,), 1: (1, 2), 2: (1, 2, 2), 3: (1, 2, 2, 2), 4: (1, 2, 2, 2, 4)}
    wide = multipliers.get(halvings, (1,) * (halvings - 3) + (2, 2, 4, 4))
    heights = [size >> i for i in range(halvings + 1)]
    return Network(multipliers=wide, attention=(min(heights, key=lambda height: abs(height - 16)),))
  wide = (1, 2, 3, 3, 4, 4, 4)[: halvings + 1]
  return Network(channels=32, multipliers=wide, blocks=1, attention=(lowest,), dropout=0.0, groups=8)


PRESETS = {f.__name__: f for f in (cifar10, cifar10_small, celeba64, fashion_mnist, digits, folder)}
