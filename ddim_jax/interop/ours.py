"""Our own networks in the words of diffusers: the inverse of `configs` and `schedulers`."""

from typing import Any

import numpy as np

from ddim_jax.interop import configs, scheduler_defaults, schedulers
from ddim_jax.interop.assembly import describe
from ddim_jax.interop.pretrained import Pretrained
from ddim_jax.parameterisation import EDM, FLOW, Parameterisation
from ddim_jax.schedules import LOG_SNR_LIMIT, Schedule
from ddim_jax.unet import RandomFourier, Sinusoids, UNet


def _named(value: Any, table: dict[Any, Any], what: str) -> Any:
  """The key under which a table of `configs` or `schedulers` has this value."""
  for key, entry in table.items():
    if entry is value:
      return key
  raise ValueError(f"a UNet2DModel cannot have this {what}: {value}")


def unet_config(model: UNet, size: int) -> dict[str, Any]:
  """The configuration of the UNet2DModel that computes what ``model`` does for square images.

  Args:
    model: The network. A null class becomes the last of ``num_class_embeds``.
    size: Height of the images, in pixels: it decides which levels have attention.

  Raises:
    ValueError: If no UNet2DModel does; names what it lacks.
  """
  levels = range(len(model.multipliers))
  by_height = tuple(level for level in levels if size >> level in model.attention)
  down, up = model.attention_levels or (by_height, by_height)
  if model.condition_size is not None:
    raise ValueError("a UNet2DModel cannot have conditions")
  if model.heads is not None or model.resample != "conv":
    raise ValueError(
      f"a UNet2DModel needs heads None and resample 'conv', got {model.heads} and {model.resample!r}"
    )
  padding = {((0, 1), (0, 1)): 0} | {((n, n), (n, n)): n for n in (1, 2)}
  if model.down_padding not in padding:
    raise ValueError(f"a UNet2DModel cannot have this down_padding: {model.down_padding}")
  time: dict[str, Any]
  match model.time:
    case Sinusoids(cosine_first, shift, None):
      time = {"flip_sin_to_cos": cosine_first, "freq_shift": shift, "time_embedding_type": "positional"}
    case RandomFourier():
      time = {"time_embedding_type": "fourier"}
    case other:
      raise ValueError(f"a UNet2DModel cannot have these features of the level: {other}")
  plain_groups = 0 if model.scale_shift else model.groups
  middle_groups = model.groups if model.middle_groups is None else model.middle_groups
  if middle_groups == 0 and plain_groups:
    raise ValueError("a UNet2DModel cannot have attention without a norm beside plain blocks")
  classes = None if model.num_classes is None else model.num_classes + model.null_class
  config = {
    "_class_name": "UNet2DModel",
    "sample_size": size,
    "in_channels": model.input_channels,
    "out_channels": model.out_channels,
    "block_out_channels": [model.width(level) for level in levels],
    "layers_per_block": model.blocks,
    "down_block_types": ["AttnDownBlock2D" if level in down else "DownBlock2D" for level in levels],
    "up_block_types": ["AttnUpBlock2D" if level in up else "UpBlock2D" for level in reversed(levels)],
    "mid_block_type": "UNetMidBlock2D" if model.middle else None,
    "add_attention": model.middle_attention,
    "attn_norm_num_groups": None if middle_groups == plain_groups else middle_groups,
    "mid_block_scale_factor": model.middle_divisor,
    "attention_head_dim": model.head_dim,
    "norm_num_groups": model.groups,
    "norm_eps": model.eps,
    "downsample_padding": padding[model.down_padding],
    "dropout": model.dropout,
    "act_fn": _named(model.activation, configs.ACTIVATIONS, "activation"),
    "resnet_time_scale_shift": "scale_shift" if model.scale_shift else "default",
    "center_input_sample": model.centre_input,
    "class_embed_type": _named(model.label_embedding, configs.LABELS, "label_embedding"),
    "num_class_embeds": classes,
    "time_embedding_dim": model.embedding,
    **time,
  }
  return configs.DEFAULTS | config


def _prediction_type(parameterisation: Parameterisation) -> Any:
  """The name of what a network predicts, given the sample in the coordinates of DDIM."""
  for name, meaning in schedulers.PREDICTIONS.items():
    if meaning is parameterisation:
      return name
  found = {FLOW: "FLOW", EDM: "EDM"}.get(parameterisation, "another")
  raise ValueError(f"diffusers has only the predictions EPS, X0 and V for such a network, got {found}")


def scheduler_config(
  schedule: Schedule, parameterisation: Parameterisation, clip: bool = True
) -> dict[str, Any]:
  """The configuration of a DDIMScheduler for this noise: by name where it has one, else by its betas.

  Args:
    schedule: Noise schedule.
    parameterisation: What the network predicts.
    clip: Clip predictions of the image to [-1, 1].

  Raises:
    ValueError: If the network predicts something that diffusers has no name for.
  """
  base = scheduler_defaults.DEFAULTS["DDIMScheduler"] | {
    "_class_name": "DDIMScheduler",
    "num_train_timesteps": schedule.T,
    "prediction_type": _prediction_type(parameterisation),
    "clip_sample": clip,
  }
  for rescale in (False, True):
    for name in ("linear", "scaled_linear", "squaredcos_cap_v2"):
      config = base | {"beta_schedule": name, "rescale_betas_zero_snr": rescale}
      if np.array_equal(schedulers.from_scheduler(config).schedule.log_snr, schedule.log_snr):
        return config
  if schedule.log_snr[-1] <= -LOG_SNR_LIMIT:
    raise ValueError("diffusers has no name for this schedule, whose last level is noise alone")
  log_alpha_bar = -np.logaddexp(0, -np.asarray(schedule.log_snr, np.float64))
  return base | {"trained_betas": (-np.expm1(np.diff(log_alpha_bar))).tolist()}


def from_ours(
  model: UNet,
  variables: dict[str, Any],
  schedule: Schedule,
  parameterisation: Parameterisation,
  *,
  size: int,
  clip: bool = True,
) -> Pretrained:
  """A network of ours, as a UNet2DModel would be read, with what `save_diffusers` needs beside it.

  Args:
    model: The network.
    variables: ``{"params": ...}``.
    schedule: Noise schedule.
    parameterisation: What it predicts.
    size: Height of its square images, in pixels.
    clip: Clip predictions of the image to [-1, 1].

  Raises:
    ValueError: If diffusers has no such network, schedule or prediction; names what.
  """
  described = describe(unet_config(model, size), scheduler_config(schedule, parameterisation, clip))
  return described._replace(variables=variables, schedule=schedule)
