"""TFDS builders for CIFAR-10, Fashion-MNIST and digits that need no TensorFlow.

TFDS's own builders for these use TensorFlow to extract, to encode and to store. These read the official
files with the standard library, store PNG as array_record, and take addresses and checksums from TFDS.
"""

import abc
import gzip
import hashlib
import io
import logging
import re
import tarfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from ddim_jax import plots

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
_CONNECT_SECONDS = 10
_FASHION_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
_CIFAR_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip

Splits = dict[str, tuple[np.ndarray, np.ndarray]]
"""Images ``u8[N, H, W, C]`` and labels ``i64[N]`` of each split."""


class _PngBuilder(tfds.core.GeneratorBasedBuilder):  # type: ignore[misc]
  """Stores arrays as PNG in array_record; a subclass says which arrays."""

  VERSION = tfds.core.Version("1.0.0")
  SHAPE: tuple[int, int, int]
  CLASSES: tuple[str, ...]

  def __init__(self, **kwargs: Any) -> None:
    super().__init__(file_format="array_record", **kwargs)

  @abc.abstractmethod
  def read_splits(self, dl_manager: Any) -> Splits:
    """The arrays of every split."""

  def _info(self) -> Any:
    features = {
      "image": tfds.features.Image(shape=self.SHAPE),
      "label": tfds.features.ClassLabel(names=self.CLASSES),
    }
    return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

  def _split_generators(self, dl_manager: Any) -> Any:
    splits = self.read_splits(dl_manager)
    return {name: self._generate_examples(*arrays) for name, arrays in splits.items()}

  def _generate_examples(
    self, images: np.ndarray, labels: np.ndarray
  ) -> Iterator[tuple[int, dict[str, Any]]]:
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
      png = io.BytesIO()
      plots.to_image(image).save(png, "PNG")
      yield i, {"image": png.getvalue(), "label": int(label)}

  def find(self, dl_manager: Any, title: str, filenames: list[str], *folders: Path) -> list[Path]:
    """The files, from the manual folder, from ``folders``, or downloaded and checked.

    Raises:
      FileNotFoundError: At once, if the files are nowhere and cannot be downloaded.
    """
    known = {info.filename: (url, info) for url, info in self.url_infos.items()}
    manual = Path(self._data_dir_root) / "downloads" / "manual"
    for folder in (manual, *folders):
      if all((folder / name).is_file() for name in filenames):
        if folder == manual:
          _report_unofficial(folder, {name: known[name][1].checksum for name in filenames})
        return [folder / name for name in filenames]
    url = known[filenames[0]][0]
    try:
      with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=_CONNECT_SECONDS):
        pass
    except (urllib.error.URLError, OSError) as error:
      files = "\n".join(f"  {name}  sha256 {known[name][1].checksum}" for name in filenames)
      raise FileNotFoundError(
        f"{title} is not on this machine and cannot be downloaded ({error}).\n"
        f"Place these files in {manual} and run again:\n{files}"
      ) from error
    return [Path(dl_manager.download(known[name][0])) for name in filenames]


def _report_unofficial(folder: Path, checksums: dict[str, str]) -> None:
  for name, expected in checksums.items():
    with (folder / name).open("rb") as file:
      found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
      logging.warning("%s is not the official file (its sha256 is %s); using it all the same.",
                      folder / name, found)  # fmt: skip


def read_idx(path: Path) -> np.ndarray:
  """An array in the IDX format of MNIST, gzipped."""
  raw = gzip.decompress(path.read_bytes())
  rank = raw[3] if len(raw) >= 4 and raw[:3] == b"\0\0\x08" else 0
  shape = tuple(np.frombuffer(raw, ">i4", rank, offset=4)) if len(raw) >= 4 + 4 * rank else ()
  if not rank or len(raw) != 4 + 4 * rank + np.prod(shape):
    raise ValueError(f"{path} is not a complete IDX file of bytes")
  return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)


class FashionMnistPng(_PngBuilder):
  """Fashion-MNIST: 60,000 and 10,000 grey images of clothes, 28x28, 10 classes."""

  SHAPE = (28, 28, 1)
  CLASSES = _FASHION_CLASSES
  url_infos = tfds.builder_cls("fashion_mnist").url_infos

  def read_splits(self, dl_manager: Any) -> Splits:
    parts = {"train": "train", "test": "t10k"}
    kinds = ("images-idx3-ubyte.gz", "labels-idx1-ubyte.gz")
    names = [f"{part}-{kind}" for part in parts.values() for kind in kinds]
    arrays = [read_idx(p) for p in self.find(dl_manager, "Fashion-MNIST", names, DEBIAN_FASHION_MNIST)]
    return {"train": (arrays[0][..., None], arrays[1]), "test": (arrays[2][..., None], arrays[3])}


class Cifar10Png(_PngBuilder):
  """CIFAR-10: 50,000 and 10,000 colour images, 32x32, 10 classes, from the binary archive."""

  SHAPE = (32, 32, 3)
  CLASSES = _CIFAR_CLASSES
  url_infos = tfds.builder_cls("cifar10").url_infos

  def read_splits(self, dl_manager: Any) -> Splits:
    (path,) = self.find(dl_manager, "CIFAR-10", ["cifar-10-binary.tar.gz"])
    patterns = {"train": r"data_batch_\d\.bin", "test": r"test_batch\.bin"}
    records: dict[str, list[np.ndarray]] = {split: [] for split in patterns}
    with tarfile.open(path, "r:gz") as archive:  # members are read, never extracted
      for member in sorted(archive.getmembers(), key=lambda m: m.name):
        for split, pattern in patterns.items():
          if member.isfile() and re.fullmatch(pattern, Path(member.name).name):
            records[split].append(_read_cifar(member, archive))
    if missing := [split for split, parts in records.items() if not parts]:
      raise ValueError(f"{path} has no {' and no '.join(missing)} batches: is it the binary version?")
    joined = {split: np.concatenate(parts) for split, parts in records.items()}
    return {
      split: (rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), rows[:, 0])
      for split, rows in joined.items()
    }


def _read_cifar(member: tarfile.TarInfo, archive: tarfile.TarFile) -> np.ndarray:
  """Records of one batch file, ``u8[N, 1 + 3072]``: the label, then red, green and blue planes."""
  file = archive.extractfile(member)
  raw = np.frombuffer(file.read() if file else b"", np.uint8)
  if not raw.size or raw.size % 3073 or raw[::3073].max() > 9:
    raise ValueError(f"{member.name} does not hold CIFAR-10 records of 3073 bytes with labels 0 to 9")
  return raw.reshape(-1, 3073)


class DigitsPng(_PngBuilder):
  """scikit-learn's 1,797 handwritten digits, grey, 8x8, 10 classes; part of the package, one split."""

  SHAPE = (8, 8, 1)
  CLASSES = tuple("0123456789")

  def read_splits(self, dl_manager: Any) -> Splits:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)
    return {"train": (images[..., None], digits.target)}


BUILDERS = {"cifar10": Cifar10Png, "fashion_mnist": FashionMnistPng, "digits": DigitsPng}
