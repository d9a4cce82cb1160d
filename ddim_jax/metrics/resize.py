"""Images of any size to the 299x299 that the Inception network takes; FID values depend on how.

`pytorch_fid` runs on the device. `clean_fid` is pillow's bicubic filter, on the host, then `centred` on the
device. Parmar et al., arXiv:2104.11222, show what the difference does.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

SIDE = 299


def coloured(images: Any) -> Any:
  """``u8[B, H, W, 1 or 3]`` with three channels; ValueError if it is of another shape or type."""
  if images.dtype != np.uint8:  # of another range, or twice scaled: distances would be wrong
    raise ValueError(f"images must be uint8 in [0, 255], got {images.dtype}{images.shape}")
  if images.ndim != 4 or images.shape[-1] not in (1, 3):
    raise ValueError(f"images must be [B, H, W, 1 or 3], got {images.shape}")
  return images.repeat(3, axis=-1) if images.shape[-1] == 1 else images


def pytorch_fid(images: jax.Array) -> jax.Array:
  """As pytorch-fid: bilinear between pixel centres without smoothing, then [0, 255] to [-1, 1].

  Args:
    images: ``u8[B, H, W, 1 or 3]``; grey images become three equal channels.

  Returns:
    ``f32[B, 299, 299, 3]``.

  Raises:
    ValueError: At trace time, if the images have another shape or type.
  """
  x = coloured(jnp.asarray(images)).astype(jnp.float32) / 255
  shape = (x.shape[0], SIDE, SIDE, 3)
  found: jax.Array = (
    2 * jax.image.resize(x, shape, "linear", antialias=False, precision=jax.lax.Precision.HIGHEST) - 1
  )
  return found


def clean_fid(images: np.ndarray) -> np.ndarray:
  """As clean-fid: pillow's bicubic filter on each channel in float32, clipped to [0, 255], not rounded.

  Args:
    images: ``u8[B, H, W, 1 or 3]``, numpy.

  Returns:
    ``f32[B, 299, 299, 3]`` in [0, 255], for `centred`.

  Raises:
    ValueError: If the images have another shape or type.
  """
  from PIL import Image

  images = coloured(np.asarray(images))
  out = np.empty((len(images), SIDE, SIDE, 3), np.float32)
  for image, target in zip(images.astype(np.float32), out, strict=True):
    for c in range(3):
      channel = Image.fromarray(np.ascontiguousarray(image[..., c]))
      target[..., c] = np.asarray(channel.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
  return np.clip(out, 0, 255)


def centred(x: jax.Array) -> jax.Array:
  """``f32[B, 299, 299, 3]`` in [0, 255] to about [-1, 1], as the network of clean-fid does it."""
  return (jnp.asarray(x) - 128) / 128
