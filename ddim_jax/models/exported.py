"""Models as single files: weights in half precision, and all that is needed to sample from them.

Safetensors: nothing in such a file is executed. The metadata holds what a checkpoint's configuration does.
"""

import json
from pathlib import Path
from typing import Any

import flax.traverse_util
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ddim_jax.atomic import replacing
from ddim_jax.models.model import Model
from ddim_jax.scaling import BYTES

SUFFIX = ".safetensors"
IN_A_FOLDER = "model.safetensors"
"""What such a file is called in a folder of a hub."""
_FORMAT = "ddim_jax 1"


def save(model: Model, path: Path, half: bool = True) -> None:
  """See `ddim_jax.models.Model.save`."""
  from ddim_jax import interop
  from ddim_jax.models import build, records

  if model.params is None:
    raise ValueError("this model has no parameters to save")
  if path.suffix == SUFFIX:
    write(path, model.params, records.describe(model, portable=True), half)
  elif path.suffix:
    raise ValueError(f"path must end in {SUFFIX} (one file), or have no suffix (a folder), got {path}")
  elif model.scaling != BYTES:
    raise ValueError(
      f"a folder of diffusers cannot say what the numbers of the data mean ({model.scaling}): save a file"
      f" that ends in {SUFFIX}"
    )
  else:
    interop.save_diffusers(path, build.to_pretrained(model))


def write(path: Path, params: Any, description: dict[str, Any], half: bool = True) -> None:
  """Writes parameters and their description.

  Args:
    path: File to write.
    params: Nested dictionary of arrays.
    description: JSON values: "config", "image", "classes", "step".
    half: Round them to float16.

  Raises:
    ValueError: If a parameter is beyond the range of float16.
  """
  flat = flax.traverse_util.flatten_dict(params, sep=".")
  for name, value in flat.items():
    if half and not np.all(np.abs(value) <= np.finfo(np.float16).max):
      raise ValueError(f"{name} has values that float16 cannot hold")
  arrays = {
    name: np.ascontiguousarray(value, np.float16 if half else np.float32) for name, value in flat.items()
  }
  with replacing(path) as partial:
    save_file(arrays, str(partial), metadata={"format": _FORMAT, "description": json.dumps(description)})
    partial.chmod(0o644)  # the library makes files that only their owner can read


def is_ours(path: Path) -> bool:
  """Whether a file is there and was written by `write`."""
  if not path.is_file():
    return False
  try:
    with safe_open(str(path), "np") as file:
      return bool((file.metadata() or {}).get("format") == _FORMAT)
  except SafetensorError:
    return False


def read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
  """Reads what `write` wrote.

  Returns:
    ``(description, params)``; parameters are float32, numpy.

  Raises:
    FileNotFoundError: If there is no such file.
    ValueError: If it is damaged, or of another kind.
  """
  if not path.is_file():
    raise FileNotFoundError(f"no such model: {path}")
  try:
    with safe_open(str(path), "np") as file:
      meta = file.metadata() or {}
      flat = {name: file.get_tensor(name).astype(np.float32) for name in file.keys()}  # noqa: SIM118
  except SafetensorError as error:
    raise ValueError(f"{path} cannot be read: {error}") from error
  if meta.get("format") != _FORMAT:
    raise ValueError(f"{path} was not written by Model.save: format {meta.get('format')!r}, not {_FORMAT!r}")
  return json.loads(meta["description"]), flax.traverse_util.unflatten_dict(flat, sep=".")
