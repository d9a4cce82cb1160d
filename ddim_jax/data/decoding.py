"""Pictures decoded once, on all cores: into memory, or into a cache folder for every later start."""

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict

import numpy as np

from ddim_jax.cpu.devices import cores
from ddim_jax.data import cache as caches
from ddim_jax.data import sources
from ddim_jax.data.batches import prefetch
from ddim_jax.data.forms import Fit, Form, Size, in_words, make_form
from ddim_jax.data.pictures import Held, readers
from ddim_jax.data.sources import Found, Source, Values
from ddim_jax.places import local
from ddim_jax.scaling import Scaling

Progress = Callable[[int, int], Any]
"""``(done, all)``, called after every picture."""
Bits = Literal[8, 16, 32]


class Pictures(NamedTuple):
  """Pictures that can be decoded one by one.

  Attributes:
    name: What they are, for people.
    names: Of each.
    decode: ``index -> (pixels, what the file held)``; a ValueError names a picture that cannot be used.
    form: What is made of them.
    labels: ``i32[N]``.
    classes: Names of the classes.
    conditions: ``f32[N, K]``, or None.
    skipped: Name and reason of what is no picture of these.
    identity: What decides the pixels, for JSON; two data sets of one identity are the same.
  """

  name: str
  names: Sequence[str]
  decode: Callable[[int], tuple[np.ndarray, Held]]
  form: Form
  labels: np.ndarray
  classes: tuple[str, ...]
  conditions: np.ndarray | None
  skipped: tuple[tuple[str, str], ...]
  identity: Any


class Reading(TypedDict, total=False):
  """How pictures are read, whatever they lie in: arguments of `load_folder` and `load_hf`.

  Attributes:
    fit: "crop", the default, shows the largest central part of the shape asked for; "pad" shows all, with
      black beside it.
    channels: 1 grey, 2 grey and alpha, 3 RGB (the default), 4 RGBA. Where no alpha is asked for, transparent
      parts are white.
    bits: 8 (the default) gives uint8; 16 keeps 16 bits, uint16; 32 keeps the numbers of 16-bit, 32-bit and
      float pictures, float32.
    values: Of 8 bits, the numbers ``(low, high)`` that become black and white in pictures with more, (0,
      65535) by default for 16; otherwise what the numbers mean, see `sources.Values`.
    skip_broken: Leave out pictures that cannot be used; ``source.found.skipped`` names them.
    cache: A folder for decoded pixels, which are then mapped and not kept in memory: the next start is
      immediate, and replaced pictures are noticed. Data sets and processes may share it, anyone delete it.
    progress: Called with ``(done, all)`` after every picture.
  """

  fit: Fit
  channels: int
  bits: Bits
  values: Values
  skip_broken: bool
  cache: str | Path | None
  progress: Progress | None


_DTYPES = {8: "uint8", 16: "uint16", 32: "float32"}


def pictures_form(image_size: Size | None, crop: Size | None, reading: Reading) -> Form:
  """The form of pictures whose numbers have a meaning.

  Raises:
    ValueError: If an argument is out of its range, or bytes are to mean anything but black to white.
    TypeError: If there is no such argument.
  """
  if unknown := sorted(set(reading) - set(Reading.__annotations__)):
    raise TypeError(
      f"there is no argument {', '.join(unknown)}; there are {', '.join(Reading.__annotations__)}"
    )
  values, bits, limits = reading.get("values"), reading.get("bits", 8), None
  if bits not in _DTYPES:
    raise ValueError(f"bits must be 8, 16 or 32, got {bits!r}")
  if not isinstance(values, str | Scaling | None) and all(np.ndim(x) == 0 for x in values):
    limits = tuple(values)
  if bits == 8 and values is not None and limits is None:
    raise ValueError(f"values must be two numbers (low, high) of 8 bits, got {values!r}")
  return make_form(
    image_size, crop, fit=reading.get("fit", "crop"), channels=reading.get("channels", 3),
    dtype=_DTYPES[bits], values=limits,
  )  # fmt: skip


def decoded(pictures: Pictures, reading: Reading) -> Source:
  """A source of pictures: in memory if they fit into `sources.MEMORY_LIMIT`, else read as needed.

  Args:
    pictures: To decode.
    reading: How; the form of the pictures is made already.

  Raises:
    ValueError: If a picture cannot be used, none is left, or they differ in size and no size is asked for.
  """
  skip_broken = reading.get("skip_broken", False)
  cache, progress = reading.get("cache"), reading.get("progress")
  values = None if pictures.form.dtype == "uint8" else reading.get("values")
  if cache is not None:
    make = lambda write: _decode_all(pictures, write, skip_broken, progress)
    identity = [pictures.identity, pictures.form._asdict(), skip_broken, readers()]
    images, kept, found = caches.cached(local(cache, "cache"), pictures.name, identity, make)
    return _source(pictures, values, images, kept, found)
  shape, total, dtype = _shape(pictures, skip_broken), len(pictures.names), np.dtype(pictures.form.dtype)
  if total * int(np.prod(shape)) * dtype.itemsize <= sources.MEMORY_LIMIT:
    images, number = np.empty((total, *shape), dtype), itertools.count()
    write = lambda pixels: images.__setitem__(next(number), pixels)
    kept, found = _decode_all(pictures, write, skip_broken, progress)
    return _source(pictures, values, images[: len(kept)], kept, found)
  if skip_broken:
    raise ValueError(f"{pictures.name} does not fit into memory: to skip broken pictures, give cache=FOLDER")
  return _as_needed(pictures, values, shape)


def _as_needed(pictures: Pictures, values: Values, shape: tuple[int, ...]) -> Source:
  """Pictures that are decoded when a batch asks for them, on all cores."""
  pool = ThreadPoolExecutor(cores(), thread_name_prefix="decode")

  def read_one(index: int) -> np.ndarray:
    pixels = pictures.decode(index)[0]
    _check_shape(pictures, index, pixels, shape)
    return pixels

  def read(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.stack(list(pool.map(read_one, indices.tolist()))), pictures.labels[indices]

  made = sources.make_source(
    pictures.name, len(pictures.names), shape, pictures.form.dtype, read, values=values,
    classes=pictures.classes,
  )  # fmt: skip
  found = Found(skipped=pictures.skipped)
  return made._replace(labels=pictures.labels, conditions=pictures.conditions, found=found)


def _shape(pictures: Pictures, skip_broken: bool) -> tuple[int, ...]:
  """What all have, or the first that can be decoded."""
  if (size := pictures.form.size or pictures.form.crop) is not None:
    return (*size, pictures.form.channels)
  for index in range(len(pictures.names)):
    try:
      return pictures.decode(index)[0].shape
    except ValueError:
      if not skip_broken:
        raise
  raise ValueError(f"{pictures.name} holds no picture that can be used")


def _decode_all(
  pictures: Pictures, write: Callable[[np.ndarray], Any], skip_broken: bool, progress: Progress | None
) -> tuple[np.ndarray, Found]:
  """Writes all pictures in their order; returns which were written and what was found."""

  def attempt(index: int) -> tuple[np.ndarray, Held] | ValueError:
    try:
      return pictures.decode(index)
    except ValueError as error:
      return error

  total, shape = len(pictures.names), None
  modes: Counter[str] = Counter()
  sizes: Counter[tuple[int, int]] = Counter()
  kept, values = list[int](), list[float]()
  skipped, frames = list(pictures.skipped), 0
  for index, result in enumerate(prefetch(attempt, 0, total, depth=4 * cores(), threads=cores())):
    if progress is not None:
      progress(index + 1, total)
    if isinstance(result, ValueError):
      if not skip_broken:
        raise result
      skipped.append((pictures.names[index], str(result).split(" cannot be used: ", 1)[-1]))
      continue
    pixels, held = result
    shape = shape or pixels.shape
    _check_shape(pictures, index, pixels, shape)
    write(pixels)
    kept.append(index)
    modes[held.mode] += 1
    sizes[held.height, held.width] += 1
    frames += held.frames
    values.extend(held.values or ())
  if not kept:
    raise ValueError(f"{pictures.name} holds no picture that can be used")
  limits = (min(values), max(values)) if values else None
  return np.array(kept), Found(dict(modes), dict(sizes), limits, frames, tuple(skipped))


def _check_shape(pictures: Pictures, index: int, pixels: np.ndarray, shape: tuple[int, ...]) -> None:
  if pixels.shape != shape:
    found, other = in_words(pixels.shape), in_words(shape)
    name = f"{pictures.name}: {pictures.names[index]}"
    raise ValueError(f"{name} has {found} pixels (height x width), another picture {other}: say image_size")


def _source(pictures: Pictures, values: Values, images: np.ndarray, kept: np.ndarray, found: Found) -> Source:
  conditions = None if pictures.conditions is None else pictures.conditions[kept]
  labels = pictures.labels[kept]
  return sources.in_memory(
    pictures.name, images, labels, pictures.classes, values=values, conditions=conditions, found=found
  )
