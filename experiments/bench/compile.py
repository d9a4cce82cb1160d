"""Start-up: import, first image, first step, compile times: ``python -m experiments.bench compile``."""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from experiments.bench import measure, peers
from experiments.bench.memory import DRAW
from experiments.bench.sample import sampler
from experiments.bench.train import stepper


def _seconds(call: Callable[[], Any]) -> float:
  began = time.perf_counter()
  call()
  return time.perf_counter() - began


def compile_times(
  network: peers.Network = "cifar10",
  batch_size: int = 8,
  steps: tuple[int, ...] = (10, 1000),
  rounds: int = 3,
  out: Path = measure.OUT,
) -> None:
  """Times to start, cold and from the compilation cache, compile times by S.

  Args:
    network: Which network, with random weights.
    batch_size: Images a call.
    steps: Numbers of steps S to compile the sampler for.
    rounds: How often each import is timed, in turn; the other times are of single processes.
    out: Folder for the JSON and the chart.
  """
  measure.positive(batch_size=batch_size, rounds=rounds, steps=min(steps))
  imports = {"jax and flax": "import jax, flax.linen", "ddim_jax besides": "import jax, flax.linen, ddim_jax"}
  taken: dict[str, list[float]] = {name: [] for name in imports}
  for _ in range(rounds):
    for name, code in imports.items():
      taken[name].append(measure.process(code)[0])
  base, both = (statistics.median(times) for times in taken.values())
  seconds = {"import ddim_jax, beyond jax and flax": both - base}
  with tempfile.TemporaryDirectory() as place:
    cache, folder = Path(place) / "cache", peers.write(network, Path(place) / "model")
    for state in ("cold", "cached"):
      name = f"process to first images, {state}"
      seconds[name] = measure.process(DRAW, folder, batch_size, 1, cache=cache)[0]

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
  }  # fmt: skip
  measure.report(f"compile_{network}_b{batch_size}", results, out, seconds, "seconds")
