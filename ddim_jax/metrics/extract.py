"""From images to features, over all local devices."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

Extractor = Callable[[jax.Array], Any]
"""``images: u8[B, H, W, C] -> f32[B, D]``, or a pytree of such arrays; may be traced."""


def over_devices(extract: Extractor) -> Callable[[np.ndarray], Any]:
  """The extractor on all local devices, from numpy to numpy.

  A batch is filled up to a multiple of the devices, and what was filled in is dropped again.
  """
  devices = jax.local_device_count()
  mapped = jax.pmap(extract)

  def run(images: np.ndarray) -> Any:
    size = len(images)
    index = np.arange(-(-size // devices) * devices) % size
    split = images[index].reshape(devices, -1, *images.shape[1:])
    join = lambda x: np.asarray(x).reshape(-1, *x.shape[2:])[:size]
    return jax.tree.map(join, jax.device_get(mapped(split)))

  return run


def gather(extract: Callable[[np.ndarray], Any], batches: Iterable[np.ndarray]) -> Iterator[Any]:
  """Features of one batch after another; all but the last should be of one size (it compiles anew).

  Raises:
    ValueError: If a batch is not ``u8[B, H, W, C]`` with at least one image.
  """
  for images in batches:
    if images.dtype != np.uint8 or images.ndim != 4 or not len(images):
      raise ValueError(f"images must be a non-empty u8[B, H, W, C], got {images.dtype}{images.shape}")
    yield extract(images)
