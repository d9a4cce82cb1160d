"""The networks in torch, as diffusers has them, and the same with our code. Needs the ``test`` extra."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from ddim_jax import interop
from ddim_jax.models import build, load

Network = Literal["cifar10", "fashion_mnist", "tiny"]
"""google/ddpm-cifar10-32 with random weights; the model that comes with the package; one of 8 channels for
tests, with random weights."""

_RANDOM: dict[Network, dict[str, Any]] = {
  "cifar10": {
    "sample_size": 32, "block_out_channels": (128, 256, 256, 256), "layers_per_block": 2,
    "norm_num_groups": 32, "dropout": 0.1,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
  },
  "tiny": {
    "sample_size": 8, "block_out_channels": (8, 8), "layers_per_block": 1, "norm_num_groups": 4,
    "down_block_types": ("DownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "UpBlock2D"),
  },
}  # fmt: skip


def write(network: Network, folder: Path) -> Path:
  """Writes the network as a folder of diffusers; returns the folder."""
  if network == "fashion_mnist":
    interop.save_diffusers(folder, build.to_pretrained(load("fashion_mnist")))
  else:
    _random_pipeline(_RANDOM[network]).save_pretrained(folder)
  return folder


def both(network: Network) -> tuple[Any, interop.Pretrained]:
  """A DDIMPipeline, and the same model as this project reads it."""
  import diffusers

  with tempfile.TemporaryDirectory() as place:
    folder = write(network, Path(place))
    pipe: Any = diffusers.DDIMPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe, interop.load_diffusers(folder)


def _random_pipeline(config: dict[str, Any]) -> Any:
  import diffusers
  import torch

  torch.manual_seed(0)
  unet: Any = diffusers.UNet2DModel(
    act_fn="silu", attention_head_dim=None, center_input_sample=False, downsample_padding=0,
    flip_sin_to_cos=False, freq_shift=1, norm_eps=1e-6, time_embedding_type="positional", **config,
  )  # fmt: skip
  scheduler = diffusers.DDIMScheduler(num_train_timesteps=1000, beta_schedule="linear", clip_sample=True)
  return diffusers.DDIMPipeline(unet, scheduler)


def ours(network: Network) -> interop.Pretrained:
  """This project's side of `both`."""
  return both(network)[1]


def image_shape(pretrained: interop.Pretrained) -> tuple[int, int, int]:
  """``(H, W, C)``."""
  size = pretrained.config["sample_size"]
  return size, size, pretrained.model.out_channels


def train_step(folder: Path, batch_size: int, channels_last: bool = False) -> Callable[[], None]:
  """One step in torch as `ddim_jax.training` does it, with the network of a folder of diffusers: noise, loss,
  gradient, clipping, Adam, average."""
  import torch
  from diffusers import UNet2DModel

  unet: Any = UNet2DModel.from_pretrained(folder, subfolder="unet")
  unet = unet.to(memory_format=torch.channels_last) if channels_last else unet
  alpha_bar = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0).float()
  size = unet.config.sample_size
  images = torch.rand(batch_size, unet.config.in_channels, size, size) * 2 - 1
  unet.train()
  parameters = list(unet.parameters())
  average = [p.detach().clone() for p in parameters]
  optimizer = torch.optim.Adam(parameters, lr=2e-4)

  def step():
    t = torch.randint(0, 1000, (batch_size,))
    eps = torch.randn_like(images)
    a = alpha_bar[t][:, None, None, None]
    output = unet(a.sqrt() * images + (1 - a).sqrt() * eps, t).sample
    loss = torch.mean((output - eps) ** 2)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    with torch.no_grad():
      torch._foreach_lerp_(average, parameters, 1 - 0.9999)
    loss.item()

  return step
