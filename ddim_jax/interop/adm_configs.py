"""The networks of improved-diffusion and guided-diffusion (ADM) as our U-Net, and what was published.

A configuration has the arguments of their ``UNetModel``, ``sample_size`` for the height of the images, and
``rescale_timesteps``, which is an option of their diffusion. References: arXiv:2102.09672 and
arXiv:2105.05233.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ddim_jax.interop.scheduler_defaults import complete
from ddim_jax.interop.schedulers import Inputs
from ddim_jax.schedules import Level, Schedule
from ddim_jax.unet import Sinusoids, UNet

CLASS = "UNetModel"
GROUPS = 32
"""Groups of every GroupNorm of theirs."""
DEFAULTS: dict[str, Any] = {
  "sample_size": None,
  "in_channels": 3,
  "out_channels": 3,
  "model_channels": 128,
  "channel_mult": [1, 2, 4, 8],
  "num_res_blocks": 2,
  "attention_resolutions": [],
  "dropout": 0.0,
  "conv_resample": True,
  "num_classes": None,
  "num_heads": 1,
  "num_head_channels": -1,
  "use_scale_shift_norm": False,
  "resblock_updown": False,
  "rescale_timesteps": False,
}
FLAGS: dict[str, Any] = {
  "image_size": None,
  "num_heads": 4,
  "num_head_channels": -1,
  "use_new_attention_order": False,
  "dropout": 0.0,
  "diffusion_steps": 1000,
  "noise_schedule": "linear",
  "rescale_timesteps": False,
  "predict_xstart": False,
}
"""Options of their scripts that weights do not tell, with the defaults of guided-diffusion."""


class Shape(NamedTuple):
  """What the weights of a network tell of it. Published networks of one shape have the same flags.

  Attributes:
    channels: Base width.
    multipliers: Width of each level in units of it.
    blocks: Residual blocks a level.
    rates: Downsampling rates with attention.
    scale_shift: The embedding scales and shifts.
    updown: Residual blocks change the size.
    conditional: There are classes.
  """

  channels: int
  multipliers: tuple[float, ...]
  blocks: int
  rates: tuple[int, ...]
  scale_shift: bool
  updown: bool
  conditional: bool


_COSINE = {"diffusion_steps": 4000, "noise_schedule": "cosine"}
_64, _128 = (1, 2, 3, 4), (1, 1, 2, 3, 4)
_256, _512 = (1, 1, 2, 2, 4, 4), (0.5, 1, 1, 2, 2, 4, 4)
PUBLISHED: dict[Shape, dict[str, Any]] = {
  # improved-diffusion: cifar10_uncond, imagenet64_uncond, imagenet64_cond, lsun_uncond
  Shape(128, (1, 2, 2, 2), 3, (2, 4), True, False, False): _COSINE
  | {"image_size": 32, "rescale_timesteps": True},
  Shape(128, _64, 3, (4, 8), True, False, False): _COSINE | {"image_size": 64, "rescale_timesteps": True},
  Shape(192, _64, 3, (4, 8), True, False, True): _COSINE | {"image_size": 64},
  Shape(128, _256, 2, (16,), False, False, False): {"image_size": 256, "num_heads": 1},
  # guided-diffusion: 64x64_diffusion, 128x128_diffusion, 256x256_diffusion, 512x512_diffusion
  Shape(192, _64, 3, (2, 4, 8), True, True, True): {
    "image_size": 64, "num_head_channels": 64, "use_new_attention_order": True, "noise_schedule": "cosine",
  },
  Shape(256, _128, 2, (4, 8, 16), True, True, True): {"image_size": 128},
  Shape(256, _256, 2, (8, 16, 32), True, True, True): {"image_size": 256, "num_head_channels": 64},
  Shape(256, _512, 2, (16, 32, 64), True, True, True): {"image_size": 512, "num_head_channels": 64},
  # 256x256_diffusion_uncond, lsun_bedroom, lsun_cat, lsun_horse
  Shape(256, _256, 2, (8, 16, 32), True, True, False): {"image_size": 256, "num_head_channels": 64},
}  # fmt: skip
"""Flags of the published networks that differ from `FLAGS`."""


def to_unet(config: dict[str, Any]) -> tuple[UNet, dict[str, Any]]:
  """The network of a configuration.

  Returns:
    The network, and the configuration with the defaults of their ``UNetModel`` filled in.

  Raises:
    ValueError: If a key is unknown, or a value is not supported.
  """
  config = complete(config, DEFAULTS, CLASS)
  channels, multipliers = config["model_channels"], config["channel_mult"]
  first = int(channels * multipliers[0])
  levels = range(len(multipliers))
  attended = tuple(level for level in levels if 2**level in config["attention_resolutions"])
  head = config["num_head_channels"]
  widths = [int(channels * multiplier) for multiplier in multipliers]
  for width in {widths[level] for level in attended} | {widths[-1]}:
    if width % (config["num_heads"] if head == -1 else head):
      raise ValueError(
        f"num_heads = {config['num_heads']} or num_head_channels = {head} must divide the width {width}"
      )
  model = UNet(
    channels=first,
    multipliers=tuple(width / first for width in widths),
    blocks=config["num_res_blocks"],
    attention=(),
    attention_levels=(attended, attended),
    dropout=config["dropout"],
    in_channels=config["in_channels"],
    out_channels=config["out_channels"],
    num_classes=config["num_classes"],
    null_class=False,
    groups=GROUPS,
    time=Sinusoids(cos_first=True, shift=0, width=channels),
    embedding=4 * channels,
    eps=1e-5,
    scale_shift=config["use_scale_shift_norm"],
    head_dim=None if head == -1 else head,
    heads=config["num_heads"] if head == -1 else None,
    resample="block" if config["resblock_updown"] else "conv" if config["conv_resample"] else "pool",
    down_padding=((1, 1), (1, 1)),
  )
  return model, config


def inputs_of(config: dict[str, Any], inputs: Inputs) -> Inputs:
  """What the network is given: with ``rescale_timesteps``, its levels count as if there were 1000.

  Args:
    config: Of `to_unet`, completed.
    inputs: What the scheduler says.
  """
  if not config["rescale_timesteps"]:
    return inputs

  def rescaled(schedule: Schedule, x_t: jax.Array, t: Level) -> tuple[jax.Array, Any]:
    x, level = inputs(schedule, x_t, t)
    return x, (jnp.asarray(level).astype(jnp.float32) - 1) * (1000 / schedule.T) + 1

  return rescaled
