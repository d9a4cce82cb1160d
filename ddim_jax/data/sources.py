"""Sources: data sets as functions from indices to images.

Small data sets are decoded once and kept as uint8; large ones are read by random access in threads.
"""

import contextlib
import fcntl
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

MEMORY_LIMIT = 2 << 30
"""Bytes of uint8 images up to which a data set is kept decoded in memory."""
_IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}


class Source(NamedTuple):
  """A finite data set with random access.

  Attributes:
    name: What it is, for people.
    size: Number of images.
    shape: ``(H, W, C)`` of every image.
    classes: Names of the classes; empty when there are no labels.
    read: ``(indices: i64[B]) -> (images: u8[B, H, W, C], labels: i32[B])``; labels are 0 without classes.
  """

  name: str
  size: int
  shape: tuple[int, int, int]
  classes: tuple[str, ...]
  read: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def in_memory(name: str, images: np.ndarray, labels=None, classes: tuple[str, ...] = ()) -> Source:
  """A source over arrays, ``u8[N, H, W, C]`` and ``i32[N]``.

  Raises:
    ValueError: If the images are not a non-empty uint8 array of rank 4, or the lengths differ.
  """
  if images.dtype != np.uint8 or images.ndim != 4 or not len(images):
    raise ValueError(f"images must be a non-empty u8[N, H, W, C], got {images.dtype}{images.shape}")
  labels = np.zeros(len(images), np.int32) if labels is None else np.asarray(labels, np.int32)
  if labels.shape != images.shape[:1]:
    raise ValueError(f"labels must be [{len(images)}], got {labels.shape}")
  shape = (images.shape[1], images.shape[2], images.shape[3])
  return Source(name, len(images), shape, classes, lambda i: (images[i], labels[i]))


Record = tuple[np.ndarray, int]


def _random_access(name, size, shape, classes, fetch: Callable[[list[int]], Iterable[Record]]) -> Source:
  """A source over ``fetch(indices)``, decoded once if it fits into `MEMORY_LIMIT`."""
  threads = min(8, os.cpu_count() or 1)
  pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")

  def read(indices):
    chunks = (chunk.tolist() for chunk in np.array_split(indices, threads) if chunk.size)
    parts = pool.map(lambda chunk: list(fetch(chunk)), chunks)
    images, labels = zip(*itertools.chain.from_iterable(parts), strict=True)
    return np.stack(images), np.asarray(labels, np.int32)

  if size * int(np.prod(shape)) <= MEMORY_LIMIT:
    images, labels = read(np.arange(size))
    return in_memory(name, images, labels, classes)
  return Source(name, size, shape, classes, read)


@contextlib.contextmanager
def _only_one(path: Path) -> Iterator[None]:
  """Holds a lock that other processes of this machine wait for."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with path.open("w") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    yield


def default_data_dir() -> Path:
  """Where TFDS keeps data sets: ``$TFDS_DATA_DIR``, or ``~/tensorflow_datasets``."""
  return Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()


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
  data_dir = data_dir or default_data_dir()
  builder = BUILDERS[name](data_dir=str(data_dir))
  if not builder.data_path.exists():
    with _only_one(data_dir / f".{name}.lock"):
      builder = BUILDERS[name](data_dir=str(data_dir))  # looks again: another process may have been first
      builder.download_and_prepare()
  return _from_builder(builder, name, split, None, None)


def load_tfds(
  name: str,
  split: str = "train",
  data_dir: Path | None = None,
  image_size: int | None = None,
  crop: int | None = None,
) -> Source:
  """Any image data set that TFDS has already prepared as array_record.

  Args:
    name: As TFDS knows it, for example ``"celeb_a"`` or ``"oxford_flowers102:2.1.1"``.
    split: A split of the data set.
    data_dir: Where it was prepared.
    image_size: Images are resized and cropped to this square; None where all have one shape.
    crop: Size of a central square cut out first, in pixels.

  Raises:
    ValueError: If it is not there, not array_record, or has no ``image``; says what to do.
  """
  import tensorflow_datasets as tfds

  data_dir = data_dir or default_data_dir()
  try:
    builder = tfds.builder(name, data_dir=str(data_dir), try_gcs=False)
  except tfds.core.registered.DatasetNotFoundError as error:
    raise ValueError(f"TFDS knows no data set {name!r} and {data_dir} holds none") from error
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
  return _from_builder(builder, name, split, image_size, crop)


def _from_builder(builder, name, split, image_size, crop) -> Source:
  if split not in builder.info.splits:
    raise ValueError(f"{name} has splits {sorted(builder.info.splits)}, got {split!r}")
  records: Any = builder.as_data_source(split)
  features = builder.info.features
  classes = tuple(features["label"].names) if "label" in features else ()
  shape = features["image"].shape
  if image_size is None and None in shape:
    raise ValueError(f"images of {name} differ in size: say image_size")

  def fetch(indices):
    for record in records.__getitems__(indices):  # many times faster than one by one
      image = record["image"]
      if image_size is not None:
        image = resize(image, image_size, crop)
      yield image, record["label"] if classes else 0

  size = image_size
  shape = shape if size is None else (size, size, shape[-1])
  return _random_access(f"{name}, {split}", len(records), shape, classes, fetch)


def drop_grey_axis(image: np.ndarray) -> np.ndarray:
  """``[H, W, 1]`` to ``[H, W]``, as Pillow wants grey images; colour stays ``[H, W, 3]``."""
  return image[..., 0] if image.shape[-1] == 1 else image


def resize(image: np.ndarray, size: int, crop: int | None = None) -> np.ndarray:
  """Central square (of ``crop`` pixels, or the largest), resized to ``size``: ``u8[size, size, C]``."""
  from PIL import Image

  height, width = image.shape[:2]
  side = min(height, width) if crop is None else crop
  if side > min(height, width):
    raise ValueError(f"crop of {side} pixels from an image of {width}x{height}")
  top, left = (height - side) // 2, (width - side) // 2
  square = Image.fromarray(drop_grey_axis(image[top : top + side, left : left + side]))
  resized = np.asarray(square.resize((size, size), Image.Resampling.BICUBIC, reducing_gap=3.0))
  return resized.reshape(size, size, image.shape[-1])


def load_folder(path: Path, image_size: int, crop: int | None = None) -> Source:
  """A folder of images, in RGB, each resized so that its central square has ``image_size`` pixels a side.

  Images directly inside the folder have no class; with subfolders, each subfolder is a class.

  Raises:
    ValueError: If there is no image, if some lie inside subfolders and some outside, or if a file is
      not an image.
  """
  from PIL import Image, ImageOps

  path = Path(path)
  if not path.is_dir():
    raise ValueError(f"{path} is not a folder")
  files = sorted(f for f in path.rglob("*") if f.suffix.lower() in _IMAGE_SUFFIXES)
  if not files:
    raise ValueError(f"{path} holds no images ({', '.join(sorted(_IMAGE_SUFFIXES))})")
  parts = [f.relative_to(path).parts for f in files]
  classes = tuple(sorted({p[0] for p in parts if len(p) > 1}))
  if loose := [f for f, p in zip(files, parts, strict=True) if classes and len(p) == 1]:
    raise ValueError(f"{path} has subfolders (classes) and images outside them, such as {loose[0].name}")
  labels = [classes.index(p[0]) if classes else 0 for p in parts]

  def fetch(indices):
    for i in indices:
      try:
        with Image.open(files[i]) as image:
          upright = ImageOps.exif_transpose(image).convert("RGB")
          yield resize(np.asarray(upright), image_size, crop), labels[i]
      except (OSError, ValueError) as error:
        raise ValueError(f"{files[i]} cannot be used: {error}") from error

  return _random_access(str(path), len(files), (image_size, image_size, 3), classes, fetch)
