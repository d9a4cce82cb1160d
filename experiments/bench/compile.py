"""Start-up: import, first image, first step, compile times: ``python -m experiments.bench compile``.

With ``--target`` it compiles for an accelerator instead: `experiments.bench.cross`.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from experiments.bench import measure, peers
from experiments.bench.cross import Search, cross
from experiments.bench.memory import DRAW
from experiments.bench.sample import sampler
from experiments.bench.train import stepper

Network = Literal["cifar10", "celeba64", "lsun256", "fashion_mnist", "tiny"]


def compile(
  network: Network = "cifar10",
  target: str | None = None,
  batch_size: int | None = None,
  channels: int | None = None,
  dtype: Literal["bfloat16", "float32"] = "bfloat16",
  largest_batch: Search = "extrapolated",
  steps: tuple[int, ...] = (10, 1000),
  rounds: int = 3,
  out: Path = measure.OUT,
) -> None:
  """Times to start on this machine; with --target, programs compiled for an accelerator that is not here.

  For a target: kernels, collectives, memory, bytes, FLOPs, the time of a roofline, and seconds to compile of
  the training step and the sampler, as JSON and as a page of all targets so far. TPU targets need
  ``pip install 'jax[tpu]'``, the H100 Python 3.12 and NVIDIA's compiler; a line says what to install.

  Args:
    network: Which network, with random weights; celeba64 and lsun256 only with --target, fashion_mnist only
      without.
    target: h100, h100:8 (GPUs of one host), or a TPU slice: v5e:2x2, v4:2x2x1, v5p:2x2x1, v6e:2x4, ...
    batch_size: Images a call, 8 by default; with --target, images a device, by default as many as the network
      is usually given.
    channels: Base width of the network, with --target; by default its own.
    dtype: What the network computes in, with --target.
    largest_batch: With --target, how the largest batch is found: extrapolated from one program, or by
      compiling some more.
    steps: Without --target, numbers of steps S to compile the sampler for.
    rounds: Without --target, how often each import is timed.
    out: Folder for the JSON and the chart or page.
  """
  if target is not None:
    cross(target, network, batch_size, channels, dtype, largest_batch, out)
    return
  if network == "celeba64" or network == "lsun256":
    allowed = ", ".join(get_args(peers.Network))
    raise ValueError(f"--network must be one of {allowed} without --target, got {network!r}")
  compile_times(network, 8 if batch_size is None else batch_size, steps, rounds, out)


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
