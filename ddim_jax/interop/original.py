"""Files of the original DDIM code (ermongroup/ddim) and of the weights that pesser converted from DDPM."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np

from ddim_jax.interop import files, names
from ddim_jax.interop.assembly import assemble
from ddim_jax.interop.pretrained import Pretrained


def _pick(values: Any, ema: bool, path: Path) -> dict[str, np.ndarray]:
  """The model's or the averaged weights, without the prefix of DataParallel."""
  if isinstance(values, list):
    if ema and len(values) < 5:
      raise ValueError(f"{path} has no averaged weights: ask for the model's own, ema 0 (False of load_ddim)")
    values = values[-1 if ema else 0] if values else None
  weights = files.as_arrays(values, str(path))
  return {name.removeprefix("module."): array for name, array in weights.items()}


def _config(
  weights: dict[str, np.ndarray], size: int | None = None, dropout: float = 0.0, groups: int = 32
) -> dict[str, Any]:
  """The network as UNet2DModel's configuration: in these files the shapes tell all but three things."""

  def shape(name: str) -> tuple[int, ...]:
    if name not in weights or weights[name].ndim != 4:
      raise ValueError(f"these are not weights of the DDIM network: no convolution {name}")
    return weights[name].shape

  count = lambda pattern: next(i for i in itertools.count() if pattern.format(i) not in weights)
  levels = range(count("down.{}.block.0.conv1.weight"))
  widths = [shape(f"down.{level}.block.0.conv1.weight")[0] for level in levels]
  channels = shape("conv_in.weight")[0]
  if not widths or widths[0] != channels:
    raise ValueError(f"the first level must be as wide as conv_in, {channels}, got widths {widths}")
  attended = [f"down.{level}.attn.0.q.weight" in weights for level in levels]
  return {
    "_class_name": "UNet2DModel",
    "sample_size": size,
    "in_channels": shape("conv_in.weight")[1],
    "out_channels": shape("conv_out.weight")[0],
    "block_out_channels": widths,
    "layers_per_block": count("down.0.block.{}.conv1.weight"),
    "down_block_types": ["AttnDownBlock2D" if a else "DownBlock2D" for a in attended],
    "up_block_types": ["AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attended)],
    "attention_head_dim": None,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
    "norm_num_groups": groups,
    "dropout": dropout,
  }


def load_ddim(
  path: str | Path,
  *,
  ema: bool = True,
  size: int | None = None,
  dropout: float = 0.0,
  groups: int = 32,
  scheduler: dict[str, Any] | None = None,
) -> Pretrained:
  """Reads a training file of ermongroup/ddim (a list) or one of pesser's (a bare dictionary).

  Args:
    path: The ``.ckpt`` or ``.pth`` file; needs torch.
    ema: Take the averaged weights of a training file; a bare dictionary has one set.
    size: Height of the images, kept in the configuration; the network does not depend on it.
    dropout: Rate for further training, in [0, 1).
    groups: Groups of every GroupNorm: 32 in that code.
    scheduler: Configuration of a diffusers scheduler; by default the paper's: T = 1000, linear
      betas from 1e-4 to 0.02, uniform steps, nothing clipped.

  Raises:
    ValueError: If the file holds anything but tensors and plain containers, or not this network.
  """
  path = files.existing(path)
  if path.suffix == ".safetensors":
    raise ValueError(f"path must be a .ckpt or .pth file, got {path}: ddim_jax.load reads .safetensors")
  read = files.read_pickle(path)
  return from_values(read, path, ema=ema, size=size, dropout=dropout, groups=groups, scheduler=scheduler)


def from_values(
  values: Any, path: Path, *, ema: bool = True, scheduler: dict[str, Any] | None = None, **settings: Any
) -> Pretrained:
  """`load_ddim`, for what `files.read_pickle` has read; settings are those of `_config`."""
  weights = _pick(values, ema, path)
  if "conv_in.weight" not in weights:
    raise ValueError(f"{path} holds no weights of the DDIM network, nor of guided-diffusion: no conv_in")
  config = _config(weights, **settings)
  paper = {"_class_name": "DDIMScheduler", "clip_sample": False}
  return assemble(
    lambda: weights, config, paper if scheduler is None else scheduler, names.to_ddim, str(path)
  )
