"""Files of guided-diffusion's classifiers of noisy images: the ``.pt`` of an ``EncoderUNetModel``."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from ddim_jax.interop import adm, files, names
from ddim_jax.interop.adm_configs import GROUPS
from ddim_jax.unet import Sinusoids
from ddim_jax.unet.noisy_classifier import Classifier

_HEAD = 64
"""Channels of a head in all classifiers of their scripts."""
_DEEPER = {20: 4}
"""Number of input_blocks -> blocks a level, where that is not 2: 64x64_classifier."""


def load_adm_classifier(
  path: str | Path, *, depth: int | None = None, head_dim: int = _HEAD
) -> tuple[Classifier, dict[str, Any]]:
  """Reads a classifier of guided-diffusion with attention pooling, as those that were published.

  ``classifier, variables = load_adm_classifier("64x64_classifier.pt")``; its logits are
  ``classifier.apply(variables, x_t, t)`` at our levels, and `ddim_jax.class_log_probability` makes of them
  what `ddim_jax.classifier_guide` takes.

  Args:
    path: The ``.pt`` file; needs torch.
    depth: Residual blocks a level, "classifier_depth"; by default that of the published classifiers, 2, or 4
      of the one for 64x64 pixels.
    head_dim: Channels of a head of attention.

  Returns:
    The network, and ``{"params": ...}``, numpy float32.

  Raises:
    ValueError: If the file holds anything but tensors, or is no such classifier.
  """
  path = files.existing(path)
  weights = files.as_arrays(files.read_pickle(path), str(path))
  if "out.2.positional_embedding" not in weights or not adm.is_adm(weights):
    raise ValueError(f"{path} is no classifier of guided-diffusion with attention pooling")
  number = len({name.split(".")[1] for name in weights if name.startswith("input_blocks.")})
  blocks = _DEEPER.get(number, 2) if depth is None else depth
  if number % (blocks + 1):
    raise ValueError(f"depth must make {number} input_blocks whole levels, got {blocks} blocks a level")
  starts = range(1, number, blocks + 1)
  blocks_of_levels = [f"input_blocks.{i}.0.in_layers.2.weight" for i in starts]
  if not set(blocks_of_levels) <= set(weights):
    raise ValueError(f"depth must be the number of residual blocks a level, got {blocks} for {path}")
  widths = [weights[name].shape[0] for name in blocks_of_levels]
  channels = weights["time_embed.0.weight"].shape[1]
  first, inputs = weights["input_blocks.0.0.weight"].shape[:2]
  attended = tuple(level for level, i in enumerate(starts) if f"input_blocks.{i}.1.qkv.weight" in weights)
  if any(widths[level] % head_dim for level in (*attended, -1)):
    raise ValueError(f"head_dim must divide the widths with attention, of {widths}, got {head_dim}")
  model = Classifier(
    num_classes=weights["out.2.c_proj.weight"].shape[0],
    channels=first,
    multipliers=tuple(width / first for width in widths),
    blocks=blocks,
    attention_levels=attended,
    head_dim=head_dim,
    scale_shift=weights["input_blocks.1.0.emb_layers.1.weight"].shape[0] == 2 * widths[0],
    resample="block" if f"input_blocks.{blocks + 1}.0.in_layers.2.weight" in weights else "conv",
    groups=GROUPS,
    time=Sinusoids(cos_first=True, shift=0, width=channels),
    embedding=4 * channels,
  )
  pool = {name: weights.pop(name) for name in list(weights) if name.startswith("out.2.")}
  positions = pool.pop("out.2.positional_embedding").T
  pool = {name.replace("qkv_proj", "qkv"): array for name, array in pool.items()}
  apart = adm.split_heads(weights, lambda width: width // head_dim, new_order=False)
  apart |= adm.split_heads(pool, None, new_order=True) | {"out.2.weight": positions}
  side = round((len(positions) - 1) ** 0.5) * 2 ** (len(widths) - 1)
  x = jnp.zeros((1, side, side, inputs), jnp.float32)
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), x, jnp.ones((), jnp.int32)))["params"]
  config = {"num_res_blocks": blocks, "channel_mult": widths, "attention_resolutions": []}
  inner = adm.rename_of(config)

  def rename(layer: str, levels: int) -> str:
    if not layer.startswith("pool"):
      return inner(layer, levels)
    return layer.replace("pool", "out.2").replace("/out", ".c_proj").replace("/", ".")

  params = names.convert(apart, shapes, len(widths), rename, str(path))
  return model, {"params": params}
