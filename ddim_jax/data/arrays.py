"""Arrays in files: ``.npy`` (memory-mapped if large) and ``.npz`` to sources, samples to files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from ddim_jax.atomic import replacing
from ddim_jax.data import sources, tiff
from ddim_jax.data.labels import as_classes
from ddim_jax.data.pictures import shown
from ddim_jax.data.sources import DTYPES, Source, Values
from ddim_jax.places import local

_IMAGE_NAMES = ("images", "image", "x", "x_train", "data", "arr_0")
_LABEL_NAMES = ("labels", "label", "y", "y_train", "arr_1")
_CONDITION_NAMES = ("conditions", "condition")


def load_array(
  path: str | Path,
  *,
  values: Values = None,
  labels: ArrayLike | None = None,
  classes: Sequence[str] = (),
  conditions: ArrayLike | None = None,
) -> Source:
  """Images, latents or feature vectors in a file of numpy.

  A ``.npy`` file larger than `sources.MEMORY_LIMIT` is memory-mapped. Of a ``.npz`` file, the array named
  images, image, x, x_train, data or arr_0 is taken, or the only one; labels, label, y, y_train or arr_1; and
  conditions or condition.

  Args:
    path: The file.
    values: What the numbers mean, see `sources.Values`; must be given for all types but uint8.
    labels: ``[N]``, numbers of classes or their names; or a ``.npy`` file of these.
    classes: Names of the classes; by default the labels themselves.
    conditions: ``f[N]`` or ``f[N, K]``, or a ``.npy`` file of these.

  Raises:
    ValueError: If the file holds no such array, or an argument does not fit; names it.
  """
  path = local(path)
  labels, conditions = (_load(x) if isinstance(x, str | Path) else x for x in (labels, conditions))
  images = _load(path)
  if isinstance(images, dict):
    arrays = images
    find = lambda names: next((arrays[name] for name in names if name in arrays), None)
    labels = find(_LABEL_NAMES) if labels is None else labels
    conditions = find(_CONDITION_NAMES) if conditions is None else conditions
    images = _images(path, images)
  if labels is not None and not classes:
    labels = np.asarray(labels)
    if labels.dtype.kind not in "iuUS" or labels.ndim != 1:
      raise ValueError(f"labels must be [N] integers or names, got {labels.dtype}{labels.shape}")
    names = np.char.decode(labels) if labels.dtype.kind == "S" else labels
    labels, classes = as_classes(names.tolist())
  return sources.in_memory(shown(path), images, labels, classes, values=values, conditions=conditions)


def _images(path: Path, arrays: dict[str, np.ndarray]) -> np.ndarray:
  if (name := next((name for name in _IMAGE_NAMES if name in arrays), None)) is not None:
    return arrays[name]
  if len(arrays) == 1:
    return next(iter(arrays.values()))
  raise ValueError(
    f"{shown(path)} has arrays {sorted(arrays)}; one must be called {' or '.join(_IMAGE_NAMES)}"
  )


def _load(path: str | Path) -> Any:
  """The array of a ``.npy`` file, memory-mapped if large, or all of a ``.npz`` file."""
  path = local(path)
  try:
    large = path.stat().st_size > sources.MEMORY_LIMIT and path.suffix.lower() == ".npy"
    loaded = np.load(path, mmap_mode="r" if large else None)
    if not isinstance(loaded, np.lib.npyio.NpzFile):
      found: Any = loaded
      return found
    with loaded:
      return {name: loaded[name] for name in loaded.files}
  except Exception as error:  # numpy and zipfile raise half a dozen types on damaged files
    reason = (getattr(error, "strerror", None) or " ".join(str(error).split())) or type(error).__name__
    raise ValueError(f"{shown(path)} cannot be used: {reason}") from error


def save_array(path: str | Path, values: np.ndarray) -> None:
  """Writes values as they are: of any type to ``.npy`` and ``.npz`` (as ``images``), one image to TIFF.

  Args:
    path: Its ending decides, in any case: .npy, .npz, .tif or .tiff. The folder is created.
    values: Such as of ``source.scaling.to_values``; for TIFF ``[H, W, C]`` of the types of sources.

  Raises:
    ValueError: If the ending is another, or TIFF cannot hold the values.
  """
  path = local(path)
  writers = {
    ".npy": lambda file: np.save(file, values),
    ".npz": lambda file: np.savez(file, images=values),
    ".tif": lambda file: tiff.write(file, values),
    ".tiff": lambda file: tiff.write(file, values),
  }
  if path.suffix.lower() not in writers:
    raise ValueError(f"path must end in {', '.join(writers)}, got {shown(path)}")
  if "tif" in path.suffix.lower() and (values.ndim != 3 or values.dtype.name not in DTYPES):
    raise ValueError(
      f"TIFF takes one image [H, W, C] of {', '.join(DTYPES)}, got {values.dtype}{values.shape}"
    )
  with replacing(path) as partial, partial.open("wb") as file:
    writers[path.suffix.lower()](file)
