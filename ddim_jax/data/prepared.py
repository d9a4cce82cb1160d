"""Data sets that TensorFlow Datasets has prepared, and this project's own; TensorFlow is not needed."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ddim_jax.cpu.devices import cores
from ddim_jax.data import sources
from ddim_jax.data.cache import arrays, file_identity, only_one
from ddim_jax.data.forms import Fit, Form, Size, make_form, resize
from ddim_jax.data.sources import Source
from ddim_jax.places import local, user_folder


def default_data_dir() -> Path:
  """Where TFDS keeps data sets: ``$TFDS_DATA_DIR``, or ``~/tensorflow_datasets``."""
  return user_folder("TFDS_DATA_DIR", "tensorflow_datasets")


def load_builtin(name: str, split: str = "train", data_dir: Path | None = None) -> Source:
  """One of this project's data sets: ``cifar10``, ``fashion_mnist`` or ``digits``.

  Prepared at first use below ``data_dir``, from files there, on the system, or downloaded.

  Raises:
    ValueError: If there is no such name or split.
    FileNotFoundError: If the data is not here and cannot be downloaded; says what to place where.
  """
  from ddim_jax.data.builders import BUILDERS

  if name not in BUILDERS:
    raise ValueError(f"data set must be one of {sorted(BUILDERS)}, got {name!r}")
  data_dir = local(data_dir, "data_dir") if data_dir else default_data_dir()
  builder = BUILDERS[name](data_dir=str(data_dir))
  if not builder.data_path.exists():
    with only_one(data_dir / f".{name}.lock"):
      builder = BUILDERS[name](data_dir=str(data_dir))  # looks again: another process may have been first
      builder.download_and_prepare()
  return _from_builder(builder, name, split, make_form(), Path(str(builder.data_path)))


def load_tfds(
  name: str,
  split: str = "train",
  data_dir: Path | None = None,
  image_size: Size | None = None,
  crop: Size | None = None,
  *,
  fit: Fit = "crop",
) -> Source:
  """Any image data set that TFDS has already prepared as array_record.

  Args:
    name: As TFDS knows it, for example ``"celeb_a"`` or ``"oxford_flowers102:2.1.1"``.
    split: A split of the data set.
    data_dir: Where it was prepared.
    image_size: Images are resized to this: a side or (height, width); None where all have one shape.
    crop: Size of a central part cut out first, in pixels, likewise.
    fit: As of `load_folder`.

  Raises:
    ValueError: If it is not there, not array_record, or has no ``image``; says what to do.
  """
  import tensorflow_datasets as tfds

  data_dir = local(data_dir, "data_dir") if data_dir else default_data_dir()
  try:
    builder = tfds.builder(name, data_dir=str(data_dir), try_gcs=False)
  except tfds.core.registered.DatasetNotFoundError as error:
    raise ValueError(f"TFDS knows no data set {name!r} and {data_dir} holds none") from error
  except (AssertionError, ValueError) as error:  # a version that it does not know, or no name at all
    raise ValueError(f"TFDS cannot use the name {name!r}: {' '.join(str(error).split())[:200]}") from error
  if not builder.data_path.exists():
    raise ValueError(
      f"{name} is not prepared below {data_dir}. With TensorFlow installed, run: tfds build {name}"
      f" --file_format=array_record --data_dir={data_dir}"
    )
  stored = builder.info.file_format
  if stored is None or stored.value != "array_record":
    raise ValueError(
      f"{name} was prepared as {stored and stored.value}, which needs TensorFlow to read. Prepare it again:"
      f" tfds build {name} --file_format=array_record --data_dir={data_dir}"
    )
  if "image" not in builder.info.features:
    raise ValueError(f"{name} has no feature 'image', only {sorted(builder.info.features)}")
  return _from_builder(builder, name, split, make_form(image_size, crop, fit=fit))


def _from_builder(builder: Any, name: str, split: str, form: Form, folder: Path | None = None) -> Source:
  if split not in builder.info.splits:
    raise ValueError(f"{name} has splits {sorted(builder.info.splits)}, got {split!r}")
  records: Any = builder.as_data_source(split)
  features = builder.info.features
  classes = tuple(getattr(features["label"], "names", None) or ()) if "label" in features else ()
  shape = features["image"].shape
  if features["image"].np_dtype != np.uint8:
    raise ValueError(f"images of {name} must be uint8, got {features['image'].np_dtype}")
  if form.size is None and form.crop is None and None in shape:
    raise ValueError(f"images of {name} differ in size: say image_size")

  def fetch(indices: list[int]) -> Iterator[tuple[np.ndarray, int]]:
    for record in records.__getitems__(indices):  # many times faster than one by one
      image = record["image"]
      yield resize(image, form), record["label"] if classes else 0

  if (size := form.size or form.crop) is not None:
    shape = (*size, shape[-1])
  return _random_access(f"{name}, {split}", split, (len(records), *shape), classes, fetch, folder)


def _random_access(
  name: str,
  split: str,
  shape: tuple[int, ...],
  classes: tuple[str, ...],
  fetch: Callable[[list[int]], Iterable[tuple[np.ndarray, int]]],
  folder: Path | None,
) -> Source:
  """A source of bytes ``[N, H, W, C]`` over ``fetch(indices)``.

  What fits into `sources.MEMORY_LIMIT` is decoded once, and kept in a .npz file of the folder of the
  records for the next start.
  """
  threads = cores()
  pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")

  def read(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    chunks = (chunk.tolist() for chunk in np.array_split(indices, threads) if chunk.size)
    parts = pool.map(lambda chunk: list(fetch(chunk)), chunks)
    images, labels = zip(*itertools.chain.from_iterable(parts), strict=True)
    return np.stack(images), np.asarray(labels, np.int32)

  if int(np.prod(shape)) > sources.MEMORY_LIMIT:
    return sources.make_source(name, shape[0], shape[1:], "uint8", read, classes=classes)
  make = lambda: read(np.arange(shape[0]))
  if folder is None:
    return sources.in_memory(name, *make(), classes)
  records = [Path(path.name) for path in sorted(folder.iterdir()) if not path.name.startswith("decoded-")]
  identity = [file_identity(folder, file) for file in records]
  images, labels = arrays(folder / f"decoded-{split}.npz", shape, identity, make)
  return sources.in_memory(name, images, labels, classes)
