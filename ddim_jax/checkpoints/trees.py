"""States as flat dictionaries of arrays by name, and what tells whether they are as they were saved."""

import json
import zlib
from typing import Any

import flax.traverse_util
import jax
import numpy as np

from ddim_jax.packing import pack_like, unpack


def flatten(tree: Any) -> dict[str, Any]:
  """Leaves of any pytree by name, such as ``"opt_state.1.0.mu.conv_in.kernel"``."""
  leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
  return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def fill(template: Any, arrays: dict[str, np.ndarray]) -> Any:
  """A pytree like ``template`` with these arrays as its leaves, packed where it is.

  Raises:
    ValueError: If names, shapes or dtypes differ; lists them.
  """
  whole = unpack(template)
  expected = flatten(whole)
  wrong = [f"{name} is missing" for name in expected if name not in arrays]
  wrong += [f"{name} is not part of this model" for name in arrays if name not in expected]
  for name in expected.keys() & arrays.keys():
    want, got = expected[name], arrays[name]
    if (want.shape, want.dtype) != (got.shape, got.dtype):
      wrong.append(f"{name} is {got.dtype}{list(got.shape)}, expected {want.dtype}{list(want.shape)}")
  if wrong:
    raise ValueError("the checkpoint does not fit: " + "; ".join(sorted(wrong)[:8]))
  filled = jax.tree.unflatten(jax.tree.structure(whole), [arrays[name] for name in expected])
  return pack_like(template, filled)


def subtree(arrays: dict[str, np.ndarray], name: str) -> dict[str, Any]:
  """The nested dictionary of arrays saved below ``name``, for instance ``"ema"``."""
  prefix = name + "."
  below = {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
  found: dict[str, Any] = flax.traverse_util.unflatten_dict(below, sep=".")
  return found


def checksum(array: np.ndarray) -> int:
  """CRC-32 of the bytes of an array."""
  return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def described(arrays: dict[str, np.ndarray]) -> dict[str, list[Any]]:
  """Name -> dtype, shape and checksum."""
  return {name: [str(a.dtype), list(a.shape), checksum(a)] for name, a in arrays.items()}


def meta_checksum(meta: dict[str, Any]) -> int:
  """CRC-32 of what is saved beside the arrays."""
  return zlib.crc32(json.dumps([meta["config"], meta["arrays"]], sort_keys=True).encode())


def first_line(error: Exception) -> str:
  """What went wrong, short enough for a message."""
  return (str(error).splitlines() or [""])[0][:200]
