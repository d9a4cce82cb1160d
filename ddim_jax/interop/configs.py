"""Configurations of diffusers' UNet2DModel as our U-Net: honoured, or refused by name."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ddim_jax.interop.scheduler_defaults import choose, complete
from ddim_jax.unet import RandomFourier, Sinusoids, UNet

DEFAULTS: dict[str, Any] = {
  "sample_size": None,
  "in_channels": 3,
  "out_channels": 3,
  "center_input_sample": False,
  "time_embedding_type": "positional",
  "time_embedding_dim": None,
  "freq_shift": 0,
  "flip_sin_to_cos": True,
  "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"],
  "mid_block_type": "UNetMidBlock2D",
  "up_block_types": ["AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
  "block_out_channels": [224, 448, 672, 896],
  "layers_per_block": 2,
  "mid_block_scale_factor": 1,
  "downsample_padding": 1,
  "downsample_type": "conv",
  "upsample_type": "conv",
  "dropout": 0.0,
  "act_fn": "silu",
  "attention_head_dim": 8,
  "norm_num_groups": 32,
  "attn_norm_num_groups": None,
  "norm_eps": 1e-5,
  "resnet_time_scale_shift": "default",
  "add_attention": True,
  "class_embed_type": None,
  "num_class_embeds": None,
  "num_train_timesteps": None,
}
ACTIVATIONS = {
  "silu": nn.swish,
  "swish": nn.swish,
  "relu": nn.relu,
  "gelu": lambda x: nn.gelu(x, approximate=False),
  "mish": lambda x: x * jnp.tanh(nn.softplus(x)),
}


def _labels_as_times(labels: Any, features: Any, dense: Any) -> jax.Array:
  found: jax.Array = dense("label_2")(nn.swish(dense("label_1")(features(labels + 1))))
  return found


def labels_as_they_are(labels: Any, features: Any, dense: Any) -> jax.Array:
  """The labels are embeddings already, ``f32[B, embedding]``."""
  found: jax.Array = labels
  return found


LABELS = {None: None, "timestep": _labels_as_times, "identity": labels_as_they_are}


def _attended(config: dict[str, Any], key: str, kinds: dict[str, bool]) -> tuple[int, ...]:
  """Levels with attention, in the order of the blocks."""
  chosen = [choose({key: kind}, key, kinds) for kind in config[key]]
  if len(chosen) != len(config["block_out_channels"]):
    raise ValueError(f"{key} must have as many entries as block_out_channels, got {config[key]}")
  return tuple(i for i, attention in enumerate(chosen) if attention)


def to_unet(config: dict[str, Any]) -> tuple[UNet, dict[str, Any]]:
  """The network of a UNet2DModel's ``config.json``.

  Returns:
    The network, and the configuration with UNet2DModel's defaults filled in.

  Raises:
    ValueError: If a key is unknown or a value is not supported.
  """
  choose({"_class_name": config.get("_class_name", "UNet2DModel")}, "_class_name", {"UNet2DModel": None})
  config = complete(config, DEFAULTS, "UNet2DModel")
  widths, levels = config["block_out_channels"], len(config["block_out_channels"])
  for key in ("downsample_type", "upsample_type"):
    choose(config, key, {"conv": None})
  down = _attended(config, "down_block_types", {"DownBlock2D": False, "AttnDownBlock2D": True})
  up = _attended(config, "up_block_types", {"UpBlock2D": False, "AttnUpBlock2D": True})
  positional = Sinusoids(bool(config["flip_sin_to_cos"]), config["freq_shift"])
  time = choose(config, "time_embedding_type", {"positional": positional, "fourier": RandomFourier()})
  padding = config["downsample_padding"]
  if levels > 1:  # other sizes do not meet again on the way up, in diffusers neither
    choose(config, "downsample_padding", {0: None, 1: None})
  scale_shift = choose(config, "resnet_time_scale_shift", {"default": False, "scale_shift": True})
  # Without a number of its own, the attention in the middle has a norm only beside plain blocks.
  middle_groups = config["attn_norm_num_groups"] or (0 if scale_shift else config["norm_num_groups"])
  head = config["attention_head_dim"]
  attended = {widths[i] for i in down} | {widths[levels - 1 - i] for i in up} | {widths[-1]}
  if head is not None and any(width % head for width in attended):
    raise ValueError(f"attention_head_dim must divide the widths {sorted(attended)}, got {head}")
  label_embedding = choose(config, "class_embed_type", LABELS)
  model = UNet(
    channels=widths[0],
    multipliers=tuple(width / widths[0] for width in widths),
    blocks=config["layers_per_block"],
    attention=(),
    attention_levels=(down, tuple(levels - 1 - i for i in up)),
    dropout=config["dropout"],
    in_channels=config["in_channels"],
    out_channels=config["out_channels"],
    num_classes=None if label_embedding else config["num_class_embeds"],
    null_class=False,
    label_embedding=label_embedding,
    groups=config["norm_num_groups"],
    time=time,
    embedding=config["time_embedding_dim"],
    eps=config["norm_eps"],
    activation=choose(config, "act_fn", ACTIVATIONS),
    scale_shift=scale_shift,
    head_dim=head,
    down_padding=((0, 1), (0, 1)) if padding == 0 else ((padding, padding),) * 2,
    middle=choose(config, "mid_block_type", {"UNetMidBlock2D": True, None: False}),
    middle_attention=bool(config["add_attention"]),
    middle_groups=middle_groups,
    middle_divisor=config["mid_block_scale_factor"],
    centre_input=bool(config["center_input_sample"]),
  )
  return model, config
