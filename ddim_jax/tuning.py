"""What a GPU's compiler tries out before it begins.

For every product of matrices XLA compiles some thirty kernels of Triton's and times them. A training step has
about a hundred different products: on an H100, of the 296 seconds that compiling one took beside two other
programs, 280 were tuning. cuBLAS has its kernels ready. Compiled for an H100, a training step is 1,407
kernels and library calls with cuBLAS and 1,293 with Triton, a sampling step 594 and 606
(``experiments.bench compile``). This can go when XLA tunes within seconds.
"""

import importlib.util
import os
from typing import Any

import jax

_OPTION = "xla_gpu_enable_triton_gemm"
_PLUGINS = ("jax_cuda12_plugin", "jax_cuda13_plugin")


def options() -> dict[str, Any] | None:
  """Compiler options for `jax.jit`, where the default device is a GPU; None elsewhere, and if ``XLA_FLAGS``
  says something about it."""
  if _OPTION in os.environ.get("XLA_FLAGS", "") or jax.default_backend() != "gpu":
    return None
  return {_OPTION: False}


def use_libraries() -> None:
  """The same for all that this process compiles; before the first use of JAX, which reads ``XLA_FLAGS`` then.

  Does nothing where JAX has no compiler for NVIDIA's GPUs.
  """
  flags = os.environ.get("XLA_FLAGS", "")
  if _OPTION not in flags and any(map(importlib.util.find_spec, _PLUGINS)):
    os.environ["XLA_FLAGS"] = f"{flags} --{_OPTION}=false".strip()
