"""Reading other projects' files: tensors and plain containers, nothing that runs code.

safetensors first. A pickle (``.bin``, ``.ckpt``, ``.pth``) is read by torch with ``weights_only=True``.
"""

import json
import pickle
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  (gives numpy the type bfloat16)
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from ddim_jax.places import local


def new_folder(path: str | Path) -> Path:
  """A folder to be written, which need not exist.

  Raises:
    ValueError: If something is there already.
  """
  folder = local(path)
  if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
    raise ValueError(f"{folder} exists and is not an empty folder")
  return folder


def existing(path: str | Path) -> Path:
  """A file to be read.

  Raises:
    ValueError: If it is none on this machine.
  """
  found = local(path)
  if not found.is_file():
    raise ValueError(f"{found} is not a file")
  return found


def read_json(path: Path) -> dict[str, Any]:
  """A JSON object.

  Raises:
    ValueError: If the file is something else.
  """
  try:
    values = json.loads(path.read_text())
  except ValueError as error:
    raise ValueError(f"{path} is not JSON: {error}") from error
  if not isinstance(values, dict):
    raise ValueError(f"{path} must hold a JSON object, got {type(values).__name__}")  # noqa: TRY004
  return values


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
  """Arrays by name."""
  try:
    return load_file(path)
  except SafetensorError as error:
    raise ValueError(f"{path} is not a sound safetensors file: {error}") from error


def read_pickle(path: Path) -> Any:
  """A file of ``torch.save``: tensors in dictionaries and lists, nothing else.

  Raises:
    ValueError: If torch is not installed, or the file holds anything that would have to run code.
  """
  try:
    import torch
  except ImportError as error:
    raise ValueError(
      f"{path} is a pickle, which is read only by torch with weights_only=True; install torch, or use"
      " a .safetensors file"
    ) from error
  with path.open("rb") as file:  # what cannot be opened is another error than what cannot be understood
    try:
      return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
      raise ValueError(
        f"{path} is refused: it is damaged, or holds something other than tensors and plain containers, and"
        " reading that could run code of whoever made the file"
      ) from error
    except (RuntimeError, EOFError, OSError) as error:
      raise ValueError(f"{path} is not a sound file of torch.save") from error


def as_arrays(values: Any, source: str) -> dict[str, np.ndarray]:
  """A dictionary of tensors as float32 arrays.

  Raises:
    ValueError: If it is not a dictionary of floating-point tensors.
  """
  if not isinstance(values, dict):
    raise ValueError(f"{source} must hold a dictionary of tensors, got {type(values).__name__}")  # noqa: TRY004
  wrong = [k for k, v in values.items() if not (hasattr(v, "is_floating_point") and v.is_floating_point())]
  if wrong:
    raise ValueError(f"{source} holds values that are not floating-point tensors: {wrong[:5]}")
  return {str(name): tensor.detach().float().numpy() for name, tensor in values.items()}


def read_weights(path: Path) -> dict[str, np.ndarray]:
  """Arrays by name from one file of either kind."""
  if path.suffix == ".safetensors":
    return read_safetensors(path)
  return as_arrays(read_pickle(path), str(path))


def read_folder(folder: Path) -> dict[str, np.ndarray]:
  """The weights of a diffusers model: one file or shards, safetensors before ``.bin``.

  Raises:
    ValueError: If there are none, or a shard is missing, leaves the folder or repeats a weight.
  """
  for stem in ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"):
    if (folder / stem).is_file():
      return read_weights(folder / stem)
    if (folder / f"{stem}.index.json").is_file():
      return _read_shards(folder / f"{stem}.index.json")
  raise ValueError(f"{folder} has no diffusion_pytorch_model.safetensors or .bin, whole or in shards")


def _read_shards(index: Path) -> dict[str, np.ndarray]:
  places = read_json(index).get("weight_map")
  if not isinstance(places, dict) or not all(isinstance(place, str) for place in places.values()):
    raise ValueError(f"{index} has no weight_map from names to files")
  weights: dict[str, np.ndarray] = {}
  for place in sorted(set(places.values())):
    if Path(place).name != place or not (index.parent / place).is_file():
      raise ValueError(f"{index} names {place!r}, which is not a file beside it")
    shard = read_weights(index.parent / place)
    expected = {name for name, of in places.items() if of == place}
    if set(shard) != expected:
      raise ValueError(f"{place} and {index.name} disagree on {sorted(set(shard) ^ expected)[:5]}")
    weights |= shard
  return weights
