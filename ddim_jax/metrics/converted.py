"""Weights of other projects, converted once and kept as safetensors."""

import hashlib
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flax.traverse_util
import numpy as np

from ddim_jax.atomic import kept, replacing
from ddim_jax.places import user_folder


def default_cache() -> Path:
  """``$XDG_CACHE_HOME/ddim_jax`` or ``~/.cache/ddim_jax``."""
  return user_folder("XDG_CACHE_HOME", ".cache") / "ddim_jax"


def sha256(path: Path) -> str:
  """Of the content of a file, as hexadecimal digits."""
  with path.open("rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def read_torch(path: Path) -> dict[str, np.ndarray]:
  """The tensors of a state dict of torch; nothing in the file is executed."""
  import torch

  tensors = torch.load(path, map_location="cpu", weights_only=True)
  return {name: tensor.numpy() for name, tensor in tensors.items()}


def folded(tensors: Mapping[str, np.ndarray], conv: str, norm: str, epsilon: float = 1e-3) -> dict[str, Any]:
  """A convolution of torch and the batch normalisation after it as one convolution of Flax, float64.

  Args:
    tensors: Of the state dict.
    conv: Name of the convolution, which has no bias.
    norm: Name of the normalisation.
    epsilon: Of the normalisation.

  Returns:
    ``{"kernel": f64[H, W, C, D], "bias": f64[D]}``.

  Raises:
    KeyError: If a tensor is missing; names it.
  """
  get = lambda name: np.asarray(tensors[name], np.float64)
  scale = get(f"{norm}.weight") / np.sqrt(get(f"{norm}.running_var") + epsilon)
  bias = get(f"{norm}.bias") - get(f"{norm}.running_mean") * scale
  return {"kernel": get(f"{conv}.weight").transpose(2, 3, 1, 0) * scale, "bias": bias}


def converted(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
  """Parameters ``{layer: {kind: array}}`` from a file, or made and put there; a flipped bit is noticed."""
  return kept(path, _read, make, _write)


def _checksum(arrays: dict[str, np.ndarray]) -> str:
  return str(zlib.crc32(b"".join(arrays[name].tobytes() for name in sorted(arrays))))


def _read(path: Path) -> dict[str, Any]:
  from safetensors import safe_open

  with safe_open(str(path), "np") as file:
    arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    said = (file.metadata() or {}).get("crc32")
  if said not in (None, _checksum(arrays)):  # files of earlier versions say nothing
    raise ValueError(f"{path} is damaged")
  found: dict[str, Any] = flax.traverse_util.unflatten_dict(arrays, sep=".")
  return found


def _write(path: Path, params: dict[str, Any]) -> None:
  from safetensors.numpy import save_file

  flat = flax.traverse_util.flatten_dict(params, sep=".")
  arrays = {name: np.ascontiguousarray(array) for name, array in flat.items()}
  with replacing(path) as partial:
    save_file(arrays, str(partial), metadata={"crc32": _checksum(arrays)})
