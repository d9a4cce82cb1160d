"""Batches as a pure function of (seed, step).

There is no iterator to save: a run that stops and goes on, on any number of processes, sees the same
global batches. Random bits come from Philox, whose stream numpy guarantees for ever.
"""

import functools
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np

from ddim_jax import ranges
from ddim_jax.data.sources import Source

_SHUFFLE, _FLIP = 0, 1
T = TypeVar("T")


class Batch(NamedTuple):
  """Examples as they are stored: ``source.scaling.to_data(batch.image)`` is what a network sees.

  Attributes:
    image: ``dtype[B, *shape]``, of bytes or of the other types of sources.
    label: ``i32[B]``.
    condition: ``f32[B, K]``; K is 0 where the source has no conditions.
  """

  image: np.ndarray
  label: np.ndarray
  condition: np.ndarray


def _random_bits(seed: int, purpose: int, counter: int, size: int) -> np.ndarray:
  ranges.check(ranges.Seed, "seed", seed)
  return np.random.Philox(key=[seed, (purpose << 48) + counter]).random_raw(size)


@functools.lru_cache(maxsize=2)
def _permutation(size: int, seed: int, epoch: int) -> np.ndarray:
  return np.argsort(_random_bits(seed, _SHUFFLE, epoch, size), kind="stable")


def batch_indices(size: int, batch_size: int, seed: int, step: int) -> np.ndarray:
  """The examples of global batch ``step``, ``i64[batch_size]`` in ``[0, size)``.

  Steps 0, 1, 2, ... walk through one random order after another, each holding every example once;
  no example is dropped at the end of an epoch.
  """
  position = step * batch_size + np.arange(batch_size)
  epoch, offset = np.divmod(position, size)
  indices = np.empty(batch_size, np.int64)
  for one in np.unique(epoch):
    indices[epoch == one] = _permutation(size, seed, int(one))[offset[epoch == one]]
  return indices


def batch_at(
  source: Source,
  step: int,
  *,
  batch_size: int,
  seed: int = 0,
  flip: bool = False,
  part: tuple[int, int] = (0, 1),
) -> Batch:
  """The batch of a training step, or one process's part of it.

  Args:
    source: The data set.
    step: Number of the batch, from 0.
    batch_size: Size of the global batch.
    seed: Decides order and flips, at least 0.
    flip: Mirror each image ``[H, W, C]`` left to right with probability 1/2.
    part: ``(index, count)``: rows ``index * batch_size / count`` and on, of as many.

  Raises:
    ValueError: If the batch does not divide into ``count`` parts, or what is no image is to be flipped.
  """
  index, count = part
  if batch_size < 1 or batch_size % count:
    raise ValueError(f"batch_size must be a positive multiple of {count} processes, got {batch_size}")
  if flip and len(source.shape) != 3:
    raise ValueError(f"flip is for images [H, W, C], not for examples of shape {source.shape}")
  rows = slice(index * batch_size // count, (index + 1) * batch_size // count)
  indices = batch_indices(source.size, batch_size, seed, step)[rows]
  images, labels = source.read(indices)
  if flip:
    mirrored = (_random_bits(seed, _FLIP, step, batch_size) >> 63)[rows].astype(bool)
    images = images.copy()
    chosen = images[mirrored]
    images[mirrored] = chosen[:, :, ::-1]  # in one expression it is five times as slow
  empty = np.zeros((len(indices), 0), np.float32)
  return Batch(images, labels, empty if source.conditions is None else source.conditions[indices])


def prefetch(
  make: Callable[[int], T], first: int, last: int, depth: int = 3, threads: int = 1
) -> Iterator[T]:
  """Yields ``make(first) .. make(last - 1)`` in their order, computed by threads up to ``depth`` ahead.

  An error in ``make`` is raised here, at its own step.
  """
  with ThreadPoolExecutor(threads, thread_name_prefix="prefetch") as thread:
    ahead = deque(thread.submit(make, step) for step in range(first, min(first + depth, last)))
    try:
      for step in range(first + depth, last + depth):
        if not ahead:
          return
        result = ahead.popleft().result()
        if step < last:
          ahead.append(thread.submit(make, step))
        yield result
    finally:
      thread.shutdown(wait=False, cancel_futures=True)
