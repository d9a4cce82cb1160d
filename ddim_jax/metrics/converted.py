"""Weights of other projects, converted once and kept as safetensors."""

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.traverse_util
import numpy as np

from ddim_jax.atomic import kept, replacing
from ddim_jax.places import user_folder


def default_cache() -> Path:
  """``$XDG_CACHE_HOME/ddim_jax`` or ``~/.cache/ddim_jax``."""
  return user_folder("XDG_CACHE_HOME", ".cache") / "ddim_jax"


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
