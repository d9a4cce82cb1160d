"""Start-up: import, first image, compile times, memory: ``python -m experiments.bench compile``."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from experiments.bench import measure, peers
from experiments.bench.sample import sampler
from experiments.bench.train import stepper

# Runs in a process of its own; the arguments are the network, the batch size and the number of batches.
_STREAM = """
import resource, sys
import jax, jax.numpy as jnp, numpy as np
from experiments.bench import peers
from experiments.bench.sample import sampler
pretrained = peers.ours(sys.argv[1])
program, variables = sampler(pretrained, 1), jax.device_put(pretrained.variables)
for i in range(int(sys.argv[3])):
  x = jax.random.normal(jax.random.key(i), (int(sys.argv[2]), *peers.image_shape(pretrained)))
  np.asarray(program(variables, pretrained.schedule, x, jnp.asarray(pretrained.timesteps(1))))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def _process(code: str, *args, cache: str | None = None) -> tuple[float, str]:
  """Seconds of a Python process from start to end, and what it printed."""
  environment = dict(os.environ)
  if cache is not None:
    environment |= {
      "JAX_COMPILATION_CACHE_DIR": cache,
      "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
      "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
  began = time.perf_counter()
  done = subprocess.run(
    [sys.executable, "-c", code, *map(str, args)], env=environment, check=True, capture_output=True, text=True
  )
  return time.perf_counter() - began, done.stdout


def _seconds(call: Callable[[], Any]) -> float:
  began = time.perf_counter()
  call()
  return time.perf_counter() - began


def compile_times(
  network: peers.Network = "cifar10",
  batch_size: int = 8,
  steps: tuple[int, ...] = (10, 1000),
  stream: tuple[int, ...] = (64, 2000),
  rounds: int = 3,
  out: Path = measure.OUT,
) -> None:
  """Times to start, cold and from the compilation cache, compile times by S, and memory by length of stream.

  Args:
    network: Which network, with random weights.
    batch_size: Images a call.
    steps: Numbers of steps S to compile the sampler for.
    stream: Numbers of images, one step each, that processes draw whose peak memory is compared.
    rounds: How often each import is timed, in turn; the other times are of single processes.
    out: Folder for the JSON and the chart.
  """
  measure.positive(batch_size=batch_size, rounds=rounds, steps=min(steps), stream=min(stream))
  imports = {"jax and flax": "import jax, flax.linen", "ddim_jax besides": "import jax, flax.linen, ddim_jax"}
  taken: dict[str, list[float]] = {name: [] for name in imports}
  for _ in range(rounds):
    for name, code in imports.items():
      taken[name].append(_process(code)[0])
  base, both = (statistics.median(times) for times in taken.values())
  seconds = {"import ddim_jax, beyond jax and flax": both - base}
  with tempfile.TemporaryDirectory() as cache:
    for state in ("cold", "cached"):
      seconds[f"process to first images, {state}"] = _process(_STREAM, network, batch_size, 1, cache=cache)[0]
    memory = {
      number: int(_process(_STREAM, network, batch_size, -(-number // batch_size), cache=cache)[1])
      for number in stream
    }

  pretrained = peers.ours(network)
  jax.config.update("jax_enable_compilation_cache", False)
  x = jnp.zeros((batch_size, *peers.image_shape(pretrained)))
  for number in steps:
    ts = jnp.asarray(pretrained.timesteps(number))
    lowered = sampler(pretrained, number).lower(pretrained.variables, pretrained.schedule, x, ts)
    seconds[f"compile the sampler, S = {number}"] = _seconds(lowered.compile)
  seconds["first training step"] = _seconds(stepper(pretrained, batch_size))
  jax.config.update("jax_enable_compilation_cache", True)
  results = {
    "network": network, "batch_size": batch_size, "rounds": rounds,
    "seconds": {name: round(value, 3) for name, value in seconds.items()},
    "peak_megabytes_by_images": {number: round(kilobytes / 1024, 1) for number, kilobytes in memory.items()},
  }  # fmt: skip
  measure.report(f"compile_{network}_b{batch_size}", results, out, seconds, "seconds")
