"""The data sets that configurations name."""

from pathlib import Path

import numpy as np

from ddim_jax import data
from ddim_jax.models.config import UNKNOWN, Data
from ddim_jax.models.model import Model


def open_data(config: Data, split: str | None = None) -> data.Source:
  """The data set of a configuration, decoded or opened; another split of it if one is named.

  Raises:
    ValueError: If it does not say which data, or its options do not go together.
  """
  if config.data == UNKNOWN:
    raise ValueError("the model's files do not say what it was trained on: give data")
  kind, _, rest = config.data.partition(":")
  split = split or config.split
  if kind == "folder" and rest:
    if config.image_size is None:
      raise ValueError("image_size is needed with data folder:PATH")
    return data.load_folder(Path(rest), config.image_size, config.crop)
  if kind == "tfds" and rest:
    return data.load_tfds(rest, split, config.data_dir, config.image_size, config.crop)
  if config.image_size is not None or config.crop is not None:
    raise ValueError(f"image_size and crop are for folder: and tfds:, not for {config.data}")
  return data.load_builtin(config.data, split, config.data_dir or data.default_data_dir())


def test_data(model: Model) -> data.Source:
  """The data set that a model was trained on, its test split where it has one."""
  split = "test" if model.config.data.data in ("cifar10", "fashion_mnist") else None
  return open_data(model.config.data, split)


def real_images(model: Model, num: int, first: int = 0) -> tuple[np.ndarray, np.ndarray]:
  """Images of the data set that a model was trained on, from its test split where it has one.

  Returns:
    ``(u8[num, H, W, C], labels: i32[num])``; fewer where the data set is smaller.
  """
  source = test_data(model)
  images, labels = source.read(np.arange(first, min(first + num, source.size)))
  return images, np.asarray(labels, np.int32)
