"""A network's first parameters, in seconds on every machine."""

import contextlib
from collections.abc import Callable
from typing import Any

import jax

from ddim_jax.seeds import key_of


def on_host(init: Callable[[jax.Array], Any], seed: int) -> Any:
  """``init(key)``, computed on the host's CPU whatever the accelerator, as NumPy arrays.

  Random parameters are needed once. A program with a random generator for each array takes a GPU's compiler
  most of a minute, and a CPU's without optimisation a few seconds. The numbers are the same on all platforms.
  Without a CPU backend (``JAX_PLATFORMS=cuda``) the default device is used.

  Args:
    init: ``(key) -> parameters``, such as ``lambda key: model.init(key, x, t)["params"]``.
    seed: Of the key.
  """
  try:
    host = jax.local_devices(backend="cpu")[0]
  except RuntimeError:
    host = None
  hasty = None if host is None else {"xla_backend_optimization_level": 0}
  with contextlib.nullcontext() if host is None else jax.default_device(host):
    return jax.device_get(jax.jit(init, compiler_options=hasty)(key_of(seed)))
