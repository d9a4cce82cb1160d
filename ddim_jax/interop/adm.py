"""Files of improved-diffusion and guided-diffusion: the ``.pt`` of their networks."""

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np

from ddim_jax.interop import adm_flags, files, names
from ddim_jax.interop.adm_configs import CLASS, PUBLISHED, Shape
from ddim_jax.interop.assembly import assemble
from ddim_jax.interop.pretrained import Pretrained
from ddim_jax.interop.scheduler_defaults import choose

_BLOCK = {
  "norm1": "in_layers.0", "conv1": "in_layers.2", "time": "emb_layers.1", "norm2": "out_layers.0",
  "conv2": "out_layers.3", "shortcut": "skip_connection",
}  # fmt: skip
_OUTSIDE = {
  "conv_in": "input_blocks.0.0", "time_1": "time_embed.0", "time_2": "time_embed.2", "classes": "label_emb",
  "norm_out": "out.0", "conv_out": "out.2",
}  # fmt: skip


def is_adm(values: Any) -> bool:
  """Whether what `files.read_pickle` has read is a network of theirs, by its names."""
  return isinstance(values, dict) and {"time_embed.0.weight", "input_blocks.0.0.weight"} <= set(values)


def rename_of(config: dict[str, Any]) -> names.Rename:
  """Their name of each of our layers; their blocks are numbered through all levels.

  Args:
    config: Of `adm_configs.to_unet`, completed.
  """
  blocks, last = config["num_res_blocks"], len(config["channel_mult"]) - 1
  kind = {"down": ".0.op", "up": ".conv"}

  def rename(layer: str, levels: int) -> str:
    if layer in _OUTSIDE:
      return _OUTSIDE[layer]
    where, _, inner = layer.partition("/")
    part = f".{_BLOCK[inner]}" if inner in _BLOCK else f".{'proj_out' if inner == 'out' else inner}"
    if match := re.fullmatch(r"middle_(block_\d|attention)", where):
      return f"middle_block.{['block_0', 'attention', 'block_1'].index(match[1])}{part}"
    match = re.fullmatch(r"(down|up)_(\d+)_(block_|attention_|downsample|upsample)(\d*)", where)
    if match is None:
      raise ValueError(f"no network of guided-diffusion has the layer {layer}")
    way, level, what, number = match[1], int(match[2]), match[3], match[4]
    if way == "down":
      index = level * (blocks + 1) + (int(number) + 1 if number else blocks + 1)
      place = f"input_blocks.{index}"
    else:
      place = f"output_blocks.{(last - level) * (blocks + 1) + (int(number) if number else blocks)}"
    if number:
      return f"{place}.{0 if what == 'block_' else 1}{part}"
    if way == "up":
      place += f".{2 if 2**level in config['attention_resolutions'] else 1}"
    elif inner:
      place += ".0"
    return place + (part if inner else kind[way])

  return rename


def shape_of(weights: dict[str, np.ndarray]) -> tuple[Shape, dict[str, Any]]:
  """What weights tell of their network: what flags go by, and the rest of the configuration.

  Raises:
    ValueError: If they are not of such a network.
  """

  def array(name: str) -> np.ndarray:
    if name not in weights:
      raise ValueError(f"these are not the weights of a network of guided-diffusion: no {name}")
    return weights[name]

  if not any(name.startswith("output_blocks.") for name in weights):
    raise ValueError("these are weights of a classifier: ddim_jax.interop.load_adm_classifier reads them")
  has = lambda place: any(name.startswith(place) for name in weights)
  # A level ends where output_blocks hold weights that double the size, or where input_blocks hold none.
  count = next(i for i in itertools.count() if not has(f"output_blocks.{i}."))
  ends = [
    i for i in range(count) for j in (1, 2)
    if has(f"output_blocks.{i}.{j}.conv.") or has(f"output_blocks.{i}.{j}.in_layers.")
  ]  # fmt: skip
  gaps = [i for i in range(count) if not has(f"input_blocks.{i}.")]
  period = ends[0] + 1 if ends else (gaps[0] if gaps else count)
  if count % period:
    raise ValueError(f"{count} output_blocks are no whole number of levels of {period}")
  starts = range(1, count, period)  # of a level among the input_blocks
  channels = array("time_embed.0.weight").shape[1]
  widths = [array(f"input_blocks.{i}.0.in_layers.2.weight").shape[0] for i in starts]
  first = f"input_blocks.{period}.0"
  shape = Shape(
    channels,
    tuple(width / channels for width in widths),
    period - 1,
    tuple(2**level for level, i in enumerate(starts) if has(f"input_blocks.{i}.1.qkv.")),
    array("input_blocks.1.0.emb_layers.1.weight").shape[0] == 2 * widths[0],
    has(f"{first}.in_layers."),
    "label_emb.weight" in weights,
  )
  return shape, {
    "_class_name": CLASS,
    "in_channels": array("input_blocks.0.0.weight").shape[1],
    "out_channels": array("out.2.weight").shape[0],
    "model_channels": channels,
    "channel_mult": list(shape.multipliers),
    "num_res_blocks": shape.blocks,
    "attention_resolutions": list(shape.rates),
    "use_scale_shift_norm": shape.scale_shift,
    "resblock_updown": shape.updown,
    "conv_resample": len(widths) == 1 or has(f"{first}.op.") or shape.updown,
    "num_classes": weights["label_emb.weight"].shape[0] if shape.conditional else None,
  }


def split_heads(weights: dict[str, np.ndarray], heads: Any, new_order: bool) -> dict[str, np.ndarray]:
  """The weights with ``q``, ``k`` and ``v`` apart, and 1x1 convolutions as matrices.

  Their one layer ``qkv`` has all q, then all k, then all v in the new order, and q, k and v of one head
  after another in the old one.

  Args:
    weights: By their names.
    heads: ``channels -> number of heads``.
    new_order: Whether it is the new one.
  """
  found = {}
  for name, array in weights.items():
    if array.ndim == 3:
      array = array[..., 0]
    if ".qkv." not in name:
      found[name] = array
      continue
    channels = array.shape[0] // 3
    apart = (1 if new_order else heads(channels), 3, -1)
    three = np.moveaxis(array.reshape(*apart, *array.shape[1:]), 1, 0)
    for part, values in zip("qkv", three, strict=True):
      found[name.replace(".qkv.", f".{part}.")] = values.reshape(channels, *array.shape[1:])
  return found


def from_weights(
  weights: dict[str, np.ndarray],
  source: str,
  *,
  size: int | None = None,
  scheduler: dict[str, Any] | None = None,
  flags: adm_flags.Flags | None = None,
) -> Pretrained:
  """`load_adm`, for weights that have been read."""
  shape, config = shape_of(weights)
  channels = config["in_channels"]  # 6 are an image and a small one to enlarge
  both = config["out_channels"] == 2 * channels
  chosen = adm_flags.completed(shape, both, adm_flags.parse(flags), PUBLISHED.get(shape), source)
  if config["out_channels"] not in (channels, 2 * channels) or channels == 6:
    raise ValueError(
      f"{source} goes from {channels} to {config['out_channels']} channels: networks that are"
      " given a small image to enlarge are not supported"
    )
  keys = ("num_heads", "num_head_channels", "dropout", "rescale_timesteps")
  config |= {key: chosen[key] for key in keys} | {"sample_size": size or chosen["image_size"]}
  T, head = chosen["diffusion_steps"], chosen["num_head_channels"]
  if scheduler is None:
    betas = {"linear": "linear", "cosine": "squaredcos_cap_v2"}
    scheduler = {
      "_class_name": "DDIMScheduler",
      "num_train_timesteps": T,
      "beta_schedule": choose(chosen, "noise_schedule", betas),
      "beta_start": 0.1 / T,
      "beta_end": 20 / T,
      "prediction_type": "sample" if chosen["predict_xstart"] else "epsilon",
    }
  heads = lambda channels: chosen["num_heads"] if head == -1 else channels // head
  read = lambda: split_heads(weights, heads, chosen["use_new_attention_order"])
  return assemble(read, config, scheduler, rename_of(config), source)


def load_adm(
  path: str | Path,
  *,
  size: int | None = None,
  scheduler: dict[str, Any] | None = None,
  flags: adm_flags.Flags | None = None,
) -> Pretrained:
  """Reads a network of improved-diffusion or guided-diffusion.

  Widths, blocks, attention, classes and learned variances are in the shapes of the weights. The rest is not:
  heads, their order, the noise, the size of images. A file shaped as a published one is taken for that; of
  others, say what they were trained with.

  Args:
    path: The ``.pt`` file, of the EMA or of the model; needs torch.
    size: Height of the images in pixels, where it is another than the network was trained for.
    scheduler: Configuration of a diffusers scheduler instead of the one that the flags say: clipped, and
      spaced as their "ddimN".
    flags: Options of their scripts, see `adm_configs.FLAGS`, by name or in one line; a given one counts
      before a published one.

  Returns:
    See `Pretrained`; of a network with learned variances, `Pretrained.variance` has them.

  Raises:
    ValueError: If the file holds anything but tensors, is not such a network, or its flags are not known.
  """
  path = files.existing(path)
  values = files.read_pickle(path)
  if not is_adm(values):
    raise ValueError(f"{path} is no network of improved-diffusion or guided-diffusion")
  weights = files.as_arrays(values, str(path))
  return from_weights(weights, str(path), size=size, scheduler=scheduler, flags=flags)
