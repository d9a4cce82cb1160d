"""Names and layouts of weights: ours, diffusers' and the original DDIM code's.

Ours are the flat names of the parameter tree, "down_0_block_1/conv1/kernel". Convolutions are HWIO here
and OIHW there; dense layers are transposed.
"""

import re
from collections.abc import Callable
from typing import Any

import flax.traverse_util
import jax.numpy as jnp
import numpy as np

Rename = Callable[[str, int], str]
"""``(name of our layer, levels) -> name of theirs``."""

_DIFFUSERS = (
  (r"conv_in|conv_out", r"\g<0>"),
  (r"norm_out", "conv_norm_out"),
  (r"time_([12])", r"time_embedding.linear_\1"),
  (r"label_([12])", r"class_embedding.linear_\1"),
  (r"classes", "class_embedding"),
  (r"time_frequencies", "time_proj"),
  (r"(down|up)_(\d+)_block_(\d+)/(.*)", r"\1_blocks.\2.resnets.\3.\4"),
  (r"(down|up)_(\d+)_attention_(\d+)/(.*)", r"\1_blocks.\2.attentions.\3.\4"),
  (r"(down|up)_(\d+)_(down|up)sample", r"\1_blocks.\2.\3samplers.0.conv"),
  (r"middle_block_(\d)/(.*)", r"mid_block.resnets.\1.\2"),
  (r"middle_attention/(.*)", r"mid_block.attentions.0.\1"),
)
_DIFFUSERS_LAYERS = {
  "resnets": {"time": "time_emb_proj", "shortcut": "conv_shortcut"},
  "attentions": {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "out": "to_out.0"},
}
_DDIM = (
  (r"conv_in|conv_out|norm_out", r"\g<0>"),
  (r"time_1", "temb.dense.0"),
  (r"time_2", "temb.dense.1"),
  (r"(down|up)_(\d+)_block_(\d+)/(.*)", r"\1.\2.block.\3.\4"),
  (r"(down|up)_(\d+)_attention_(\d+)/(.*)", r"\1.\2.attn.\3.\4"),
  (r"(down|up)_(\d+)_(down|up)sample", r"\1.\2.\3sample.conv"),
  (r"middle_block_0/(.*)", r"mid.block_1.\1"),
  (r"middle_block_1/(.*)", r"mid.block_2.\1"),
  (r"middle_attention/(.*)", r"mid.attn_1.\1"),
)
_DDIM_LAYERS = {"time": "temb_proj", "shortcut": "nin_shortcut", "out": "proj_out"}
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}


def _translate(name: str, table: Any) -> str:
  for pattern, replacement in table:
    if match := re.fullmatch(pattern, name):
      return match.expand(replacement)
  raise ValueError(f"no other project's network has the layer {name}")


def to_diffusers(layer: str, levels: int) -> str:
  """The name in a UNet2DModel, whose up blocks count from the smallest images."""
  name = _translate(layer, _DIFFUSERS)
  name = re.sub(r"(?<=^up_blocks\.)\d+", lambda m: str(levels - 1 - int(m[0])), name)
  for kind, layers in _DIFFUSERS_LAYERS.items():
    head, _, last = name.rpartition(".")
    if f".{kind}." in name:
      return f"{head}.{layers.get(last, last)}"
  return name


def to_ddim(layer: str, levels: int) -> str:
  """The name in the original DDIM code."""
  name = _translate(layer, _DDIM)
  head, _, last = name.rpartition(".")
  return f"{head}.{_DDIM_LAYERS.get(last, last)}" if "/" in layer else name


def modern(name: str) -> str:
  """A diffusers name, with the attention of files before 2023 under today's."""
  parts = name.split(".")
  if "attentions" in parts and len(parts) > 1 and parts[-2] in _OLD_ATTENTION:
    parts[-2] = _OLD_ATTENTION[parts[-2]]
  return ".".join(parts)


def _theirs(ours: str, levels: int, rename: Rename) -> str:
  layer, _, leaf = ours.rpartition("/")
  if not layer:
    return f"{rename(leaf, levels)}.weight"
  return f"{rename(layer, levels)}.{'bias' if leaf == 'bias' else 'weight'}"


def _turn(array: np.ndarray, ours: str) -> np.ndarray:
  """From our layout to theirs."""
  if not ours.endswith("kernel"):
    return array
  return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T


def export(params: Any, levels: int, rename: Rename) -> dict[str, np.ndarray]:
  """Our parameter tree under their names and in their layouts."""
  flat = flax.traverse_util.flatten_dict(params, sep="/")
  return {
    _theirs(name, levels, rename): np.ascontiguousarray(_turn(np.asarray(leaf), name))
    for name, leaf in flat.items()
  }


def convert(weights: dict[str, np.ndarray], shapes: Any, levels: int, rename: Rename, source: str) -> Any:
  """Their weights as our parameter tree.

  Args:
    weights: Arrays by their names; 1x1 convolutions may stand where we have dense layers.
    shapes: The parameter tree with a shape at each leaf.
    levels: Levels of the network.
    rename: `to_diffusers` or `to_ddim`.
    source: What to call the weights in messages.

  Raises:
    ValueError: If a weight is missing, left over, or of another shape or a type that is not floating
      point; lists all of them.
  """
  flat = flax.traverse_util.flatten_dict(shapes, sep="/")
  left, converted, wrong = dict(weights), {}, []
  for ours, shape in flat.items():
    theirs = _theirs(ours, levels, rename)
    array = left.pop(theirs, None)
    if array is None:
      wrong.append(f"missing {theirs} (our {ours})")
      continue
    if ours.endswith("kernel") and array.ndim == 4:
      array = array.transpose(2, 3, 1, 0)
      array = array[0, 0] if len(shape.shape) == 2 and array.shape[:2] == (1, 1) else array
    elif ours.endswith("kernel") and array.ndim == 2:
      array = array.T
    if array.shape != shape.shape or not jnp.issubdtype(array.dtype, jnp.floating):
      wrong.append(f"{theirs} is {array.dtype}{list(array.shape)}, our {ours} needs {list(shape.shape)}")
      continue
    converted[ours] = np.ascontiguousarray(array, np.float32)
  wrong += [f"unexpected {name}" for name in left]
  if wrong:
    raise ValueError(f"the weights of {source} do not fit their configuration: " + "; ".join(wrong))
  return flax.traverse_util.unflatten_dict(converted, sep="/")
