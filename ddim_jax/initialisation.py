"""A network's first parameters, in seconds on every machine."""

import contextlib
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def initial_params(model: nn.Module, shape: tuple[int, ...], seed: int, labels: bool = False) -> Any:
  """Random parameters, computed on the host's CPU whatever the accelerator.

  They are needed once, and a program with a random generator for each array takes a GPU's compiler most of a
  minute, a CPU's without optimisation a few seconds. Without a CPU backend (``JAX_PLATFORMS=cuda``) the
  default device is used.

  Args:
    model: Called as ``model.init(key, x: f32[1, *shape], t: i32[])``, with ``i32[1]`` labels if it takes any.
    shape: Of one example.
    seed: Decides the parameters, the same ones on all platforms.
    labels: Whether the network is conditional.

  Returns:
    A tree of NumPy arrays.
  """
  try:
    host = jax.local_devices(backend="cpu")[0]
  except RuntimeError:
    host = None

  def init(key):
    given = (jnp.zeros((1,), jnp.int32),) if labels else ()
    return model.init(key, jnp.zeros((1, *shape)), jnp.ones((), jnp.int32), *given)["params"]

  hasty = None if host is None else {"xla_backend_optimization_level": 0}
  with contextlib.nullcontext() if host is None else jax.default_device(host):
    return jax.device_get(jax.jit(init, compiler_options=hasty)(jax.random.key(seed)))
