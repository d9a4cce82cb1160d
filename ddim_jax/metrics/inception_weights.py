"""Weights of the FID's Inception network from a local file; nothing is downloaded.

The usual file is ``pt_inception-2015-12-05-6726825d.pth``, from the releases of pytorch-fid
(github.com/mseitzer/pytorch-fid); its sha256 is checked before it is read. It is converted once, and kept as
safetensors named by that hash.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddim_jax.metrics import converted
from ddim_jax.metrics.inception import Inception
from ddim_jax.metrics.resize import SIDE

SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""Of pt_inception-2015-12-05-6726825d.pth."""


class Weights(NamedTuple):
  """Parameters of `Inception`, and the sha256 of the file that they come from."""

  params: dict[str, Any]
  sha256: str


def _shapes() -> dict[str, tuple[int, ...]]:
  images = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), jnp.float32)
  tree = jax.eval_shape(Inception().init, jax.random.key(0), images)["params"]
  return {f"{layer}.{kind}": leaf.shape for layer, leaves in tree.items() for kind, leaf in leaves.items()}


def convert(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """Parameters of `Inception` from a state dict with pytorch-fid's names.

  Args:
    tensors: Such as ``"Mixed_5b.branch1x1.conv.weight"``, numpy arrays.

  Raises:
    ValueError: If a tensor is missing or has another shape; names it.
  """
  flat: dict[str, np.ndarray] = {}
  layers = {name.removesuffix(".conv.weight") for name in tensors if name.endswith(".conv.weight")}
  try:
    for layer in layers:
      for kind, array in converted.folded(tensors, f"{layer}.conv", f"{layer}.bn").items():
        flat[f"{layer.replace('.', '_')}.{kind}"] = array
    flat["fc.kernel"] = np.asarray(tensors["fc.weight"]).T
    flat["fc.bias"] = np.asarray(tensors["fc.bias"])
  except KeyError as error:
    raise ValueError(f"the Inception weights have no tensor {error}") from error
  return _checked(flat)


def _checked(flat: Mapping[str, np.ndarray]) -> dict[str, Any]:
  expected = _shapes()
  for name in sorted(expected.keys() | flat.keys()):
    got = flat[name].shape if name in flat else None
    if expected.get(name) != got:
      raise ValueError(f"the Inception weights have {name} of shape {got}, expected {expected.get(name)}")
  params: dict[str, Any] = {}
  for name, array in flat.items():
    layer, kind = name.split(".")
    params.setdefault(layer, {})[kind] = np.asarray(array, np.float32)
  return params


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
  from safetensors.numpy import load_file

  return load_file(str(path))


def load(path: Path, sha256: str | None = None, cache: Path | None = None) -> Weights:
  """Reads, checks and converts the weights, or finds them converted.

  Args:
    path: A file of torch (``.pth``, ``.pt``) or safetensors, with pytorch-fid's names.
    sha256: What the file must hash to. None asks a torch file for `SHA256` and takes any safetensors.
    cache: Folder for converted weights, `converted.default_cache` by default.

  Raises:
    ValueError: If the hash, the ending, or the tensors are others.
    OSError: If the file cannot be read.
  """
  path = Path(path)
  readers: dict[str, Callable[[Path], dict[str, np.ndarray]]] = {
    ".pth": converted.read_torch, ".pt": converted.read_torch, ".safetensors": _read_safetensors
  }  # fmt: skip
  if path.suffix not in readers:
    raise ValueError(f"the Inception weights must be one of {', '.join(readers)}, got {path}")
  wanted = sha256 or (None if path.suffix == ".safetensors" else SHA256)
  found = converted.sha256(path)
  if wanted not in (None, found):
    raise ValueError(f"{path} has sha256 {found}, expected {wanted}")
  kept = (cache or converted.default_cache()) / f"inception-{found}.safetensors"
  return Weights(converted.converted(kept, lambda: convert(readers[path.suffix](path))), found)
