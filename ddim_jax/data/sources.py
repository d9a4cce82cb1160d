"""Sources: data sets as functions from indices to numbers, with what these numbers mean."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from jax.typing import ArrayLike

from ddim_jax import scaling as scalings
from ddim_jax.scaling import BYTES, Scaling

MEMORY_LIMIT = 2 << 30
"""Bytes up to which a data set is kept in memory."""
_CHUNK = 4096
DTYPES = ("uint8", "uint16", "int16", "float16", "float32")

Values = Literal["minmax", "standardise"] | tuple[Any, Any] | Scaling | None
"""What stored numbers mean; nothing is guessed from them.

``(low, high)``: these become -1 and 1, one number each or one for each channel, and all values lie between
them: (0, 1), (-1, 1), (0, 4095). ``"minmax"``: the lowest and the highest of the whole data set.
``"standardise"``: each channel gets mean 0 and variance 1. A `Scaling`: that of another source, such as of
the training images for test images. None: bytes, (0, 255).
"""


class UnsaidError(ValueError):
  """The data are not bytes, and ``values`` does not say what their numbers mean."""


class Found(NamedTuple):
  """What reading a data set met.

  Attributes:
    modes: Number of pictures by mode, such as "RGB" or "I;16".
    sizes: Number of pictures by (height, width).
    values: Lowest and highest value as stored, of pictures with more than 8 bits, or None.
    frames: Number of pictures with several frames or pages, of which the first is used.
    skipped: Name and reason of everything that is not used.
  """

  modes: Mapping[str, int] = {}
  sizes: Mapping[tuple[int, int], int] = {}
  values: tuple[float, float] | None = None
  frames: int = 0
  skipped: tuple[tuple[str, str], ...] = ()


class Source(NamedTuple):
  """A finite data set with random access.

  Attributes:
    name: What it is, for people.
    size: Number of examples.
    shape: Of every example: ``(H, W, C)`` of images, ``(D,)`` of feature vectors.
    classes: Names of the classes; empty when there are no labels.
    read: ``(indices: i64[B]) -> (values: dtype[B, *shape], labels: i32[B])``; labels are 0 without classes.
    scaling: What the values mean: ``scaling.to_data(values)`` is what a network sees, ``scaling.to_values``
      undoes it to samples.
    labels: All labels, ``i32[size]``, where they are known without reading.
    conditions: A vector for each example, ``f32[size, K]``, or None.
    found: What reading met.
  """

  name: str
  size: int
  shape: tuple[int, ...]
  classes: tuple[str, ...]
  read: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
  scaling: Scaling = BYTES
  labels: np.ndarray | None = None
  conditions: np.ndarray | None = None
  found: Found = Found()


def in_memory(
  name: str,
  images: np.ndarray,
  labels: ArrayLike | None = None,
  classes: Sequence[str] = (),
  *,
  values: Values = None,
  conditions: ArrayLike | None = None,
  found: Found = Found(),  # noqa: B008
) -> Source:
  """A source over an array, which may be memory-mapped.

  Args:
    name: What it is, for people.
    images: ``[N, H, W, C]`` of images, ``[N, H, W]`` of grey ones, ``[N, D]`` of vectors, or of any higher
      rank; uint8, uint16, int16, float16, float32, or float64, which becomes float32.
    labels: ``i[N]``, or None.
    classes: Names of the classes.
    values: What the numbers mean, see `Values`; must be given for all types but uint8.
    conditions: ``f[N]`` or ``f[N, K]``, or None.
    found: What reading met.

  Raises:
    ValueError: If an argument does not fit; names it. Values beyond those said are refused here, or of a
      memory-mapped array when they are read.
  """
  images = images if isinstance(images, np.ndarray) else np.asarray(images)
  kind = "float32" if images.dtype == np.float64 else images.dtype.newbyteorder("=").name
  if kind not in DTYPES or images.ndim < 2 or not images.size:
    raise ValueError(
      f"images must be a non-empty [N, H, W, C], [N, H, W] or [N, D] of one of {', '.join(DTYPES)}, got"
      f" {images.dtype}{list(images.shape)}"
    )
  images = images[..., None] if images.ndim == 3 else images
  if not isinstance(images, np.memmap):
    images = images.astype(kind, copy=False)
  labels = checked_labels(len(images), labels, classes)
  get = lambda i: np.asarray(images[i]).astype(kind, copy=False)
  made = make_source(
    name, len(images), images.shape[1:], kind, lambda i: (get(i), labels[i]), values=values, classes=classes,
    parts=lambda: (get(slice(start, start + _CHUNK)) for start in range(0, len(images), _CHUNK)),
    check_now=not isinstance(images, np.memmap),
  )  # fmt: skip
  return made._replace(labels=labels, conditions=checked_conditions(len(images), conditions), found=found)


def make_source(
  name: str,
  size: int,
  shape: Sequence[int],
  dtype: str,
  read: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]],
  *,
  values: Values = None,
  classes: Sequence[str] = (),
  parts: Callable[[], Iterator[np.ndarray]] | None = None,
  check_now: bool = False,
) -> Source:
  """A source over a function.

  Args:
    name: What it is, for people.
    size: Number of examples.
    shape: Of every example.
    dtype: Of the values.
    read: As of `Source`.
    values: What they mean.
    classes: Names of the classes.
    parts: Iterates over all values where they are needed; by default it reads them.
    check_now: Check all values here, instead of each when it is read.

  Raises:
    ValueError: If ``values`` do not fit.
  """
  if parts is None:
    parts = lambda: (read(np.arange(i, min(i + _CHUNK, size)))[0] for i in range(0, size, _CHUNK))
  scaling = _scaling(values, dtype, parts)
  if channels := {len(x) for x in (scaling.offset, scaling.scale) if isinstance(x, tuple)} - {shape[-1]}:
    raise ValueError(f"values are for {channels.pop()} channels, the data have {shape[-1]}")

  def checked_read(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    found, labels = read(indices)
    check_values(found, scaling, name)
    return found, labels

  cannot_fail = scaling == BYTES or (not scaling.bounded and np.dtype(dtype).kind != "f")
  if check_now and not cannot_fail:
    for part in parts():
      check_values(part, scaling, name)
  chosen = read if check_now or cannot_fail else checked_read
  return Source(name, size, tuple(shape), tuple(classes), chosen, scaling)


def _scaling(values: Values, dtype: str, parts: Callable[[], Iterator[np.ndarray]]) -> Scaling:
  if isinstance(values, Scaling):
    if values.dtype != dtype:
      raise ValueError(f"values are those of {values.dtype}, the data are {dtype}")
    return values
  if values is None:
    if dtype != "uint8":
      raise UnsaidError(
        f"values must be given for {dtype}: (low, high), which become -1 and 1, such as (0, 1) or (0, 65535);"
        ' "minmax" of the data; or "standardise"'
      )
    return BYTES
  if isinstance(values, str):
    if values == "standardise":
      return scalings.from_moments(parts(), dtype)
    if values != "minmax":
      raise ValueError(f'values must be (low, high), "minmax" or "standardise", got {values!r}')
    limits = [(part.min(), part.max()) for part in parts()]
    values = (np.min(limits), np.max(limits))
  if len(values) != 2:
    raise ValueError(f"values must be a pair (low, high), got {values}")
  return scalings.from_limits(*values, dtype)


def check_values(found: np.ndarray, scaling: Scaling, name: str) -> None:
  """Raises ValueError if values are NaN or infinite, or beyond the limits of bounded data."""
  flat = found.reshape(-1, found.shape[-1])
  low, high = flat.min(axis=0).astype(np.float64), flat.max(axis=0).astype(np.float64)
  offset, scale = np.asarray(scaling.offset), np.asarray(scaling.scale)
  slack = scale * (1 + 1e-5)  # a resized 1 may be 1.0000001
  good = np.isfinite(low) & np.isfinite(high)
  if scaling.bounded:
    good &= (low >= offset - slack) & (high <= offset + slack)
  if not np.all(good):
    raise ValueError(
      f"{name} holds values from {low.min():g} to {high.max():g}, beyond those said: {scaling}"
    )


def checked_labels(size: int, labels: ArrayLike | None, classes: Sequence[str]) -> np.ndarray:
  """Labels as ``i32[size]``, zeros for None.

  Raises:
    ValueError: If they are no integers, of another number, or have no class.
  """
  if labels is None:
    return np.zeros(size, np.int32)
  labels = np.asarray(labels)
  if labels.shape != (size,) or labels.dtype.kind not in "iu":
    raise ValueError(f"labels must be [{size}] integers, got {labels.dtype}{labels.shape}")
  if classes and not (labels.min() >= 0 and labels.max() < len(classes)):
    raise ValueError(f"labels must lie in [0, {len(classes)}), got {labels.min()} to {labels.max()}")
  return labels.astype(np.int32)


def checked_conditions(size: int, conditions: ArrayLike | None) -> np.ndarray | None:
  """Conditions as ``f32[size, K]``, or None.

  Raises:
    ValueError: If they are of another number, or hold NaN or infinity.
  """
  if conditions is None:
    return None
  array = np.asarray(conditions, np.float32)
  array = array[:, None] if array.ndim == 1 else array
  if array.ndim != 2 or len(array) != size or not np.all(np.isfinite(array)):
    raise ValueError(f"conditions must be finite [{size}] or [{size}, K], got shape {array.shape}")
  return array
