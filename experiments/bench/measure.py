"""Alternating measurements, the machine's own rates, and what is written about them."""

import contextlib
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import ddim_jax
from ddim_jax import convolution, plots
from ddim_jax.commands import cli

OUT = Path("experiments/results/bench")
_CALLS = 10  # of a probe, so that caches and threads are as warm for it as within a network
Sides = dict[str, Callable[[], Any]]
"""Name -> what to measure; it must have finished its work when it returns."""


def machine() -> str:
  """The machine in a line."""
  device = jax.devices()[0]
  return f"{platform.machine()}, {os.cpu_count()} cores, {device.platform}, jax {jax.__version__}"


def positive(**values: int) -> None:
  """Raises ValueError for the first option that is not positive."""
  for name, value in values.items():
    if value < 1:
      raise ValueError(f"--{name.replace('_', '-')} must be positive, got {value}")


def alternate(sides: Sides, rounds: int, before: int = 1) -> dict[str, list[float]]:
  """Seconds of each side, A B C A B C ..., after so many calls ``before`` of each that are not counted."""
  for name, side in sides.items():
    began = time.perf_counter()
    side()
    print(f"{name}: {time.perf_counter() - began:.2f} s for the first call", flush=True)
    for _ in range(before - 1):
      side()
  seconds: dict[str, list[float]] = {name: [] for name in sides}
  for _ in range(rounds):
    for name, side in sides.items():
      began = time.perf_counter()
      side()
      seconds[name].append(time.perf_counter() - began)
  return seconds


@contextlib.contextmanager
def elsewhere(make: Callable[..., Callable[[], Any]], *args) -> Iterator[Callable[[], None]]:
  """The side ``make(*args)`` in a process of its own, with as many devices; ``make`` is pickled by name.

  In one process the sides' allocations lie among each other, and the memory of both goes on growing.

  Raises:
    RuntimeError: When called, if that process has failed; its standard error says why.
  """
  context = multiprocessing.get_context("spawn")
  here, there = context.Pipe()
  process = context.Process(target=_serve, args=(there, jax.local_device_count(), make, args), daemon=True)
  process.start()
  there.close()

  def side():
    here.send(None)
    try:
      here.recv()
    except EOFError:
      raise RuntimeError(f"the process of {make.__name__} failed") from None

  try:
    yield side
  finally:
    here.close()
    process.join()


def _serve(pipe, devices: int, make: Callable[..., Callable[[], Any]], args: tuple) -> None:
  cli.prepare(devices)
  side = make(*args)
  with contextlib.suppress(EOFError):  # the other end was closed: that is all
    while True:
      pipe.recv()
      side()
      pipe.send(None)


def process(code: str, *args, cache: Path | None = None) -> tuple[float, str]:
  """Seconds of a Python process, and what it printed; ``cache`` is a folder for compiled programs."""
  environment = dict(os.environ)
  if cache is not None:
    environment |= {
      "JAX_COMPILATION_CACHE_DIR": str(cache),
      "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
      "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
  began = time.perf_counter()
  done = subprocess.run(
    [sys.executable, "-c", code, *map(str, args)], env=environment, check=True, capture_output=True, text=True
  )
  return time.perf_counter() - began, done.stdout


def rate_probes(size: int = 1536, channels: int = 256) -> tuple[Sides, dict[str, float]]:
  """Sides that measure what XLA reaches here in float32, and their GFLOP a round."""
  a = jnp.ones((size, size))
  x, kernel = jnp.ones((8, 16, 16, channels)), jnp.ones((3, 3, channels, channels))
  product, convolve = jax.jit(jnp.matmul), jax.jit(convolution.direct)
  sides: Sides = {
    "product": lambda: [jax.block_until_ready(product(a, a)) for _ in range(_CALLS)],
    "convolution": lambda: [jax.block_until_ready(convolve(x, kernel)) for _ in range(_CALLS)],
  }
  work = {"product": 2 * size**3, "convolution": 2 * 8 * 256 * 9 * channels**2}
  return sides, {name: _CALLS * flop / 1e9 for name, flop in work.items()}


def gflop(model: ddim_jax.UNet, *args) -> float:
  """GFLOP of one call with direct convolutions, by XLA's count for the program as written."""
  analysis: Any = jax.jit(model.clone(conv="direct").apply).lower(*args).cost_analysis()
  return analysis["flops"] / 1e9


def compare(
  sides: Sides, rounds: int, images: int, work: float, ours: str, before: int = 1
) -> dict[str, Any]:
  """Measures the sides in turn, with the machine's rates among them.

  Args:
    sides: What to measure.
    rounds: How often each is measured, in turn.
    images: Images a call.
    work: GFLOP a call by the plain algorithm, the same for all sides.
    ours: The side to which the others are compared, round by round.
    before: Calls of each that are not counted.

  Returns:
    ``"gflop_per_second"`` of the probes, and for each of ``"sides"`` time an image, GFLOP/s, their fraction
    of the rates, and how many times as long as ``ours`` it takes.
  """
  probes, probe_work = rate_probes()
  seconds = alternate(sides | probes, rounds, before)
  rates = {name: probe_work[name] / statistics.median(seconds.pop(name)) for name in probes}
  table = {}
  for name, times in seconds.items():
    ratios = np.asarray(times) / np.asarray(seconds[ours])
    rate = work / statistics.median(times)
    table[name] = {
      "seconds_per_image": round(statistics.median(times) / images, 6),
      "fastest_seconds_per_image": round(min(times) / images, 6),
      "times_ours_median": round(float(np.median(ratios)), 3),
      "times_ours_range": [round(float(ratios.min()), 3), round(float(ratios.max()), 3)],
      "gflop_per_second": round(rate, 3),
    } | {f"fraction_of_{kind}_rate": round(rate / rates[kind], 4) for kind in probes}
  return {"gflop_per_second": {name: round(rate, 1) for name, rate in rates.items()}, "sides": table}


def write(name: str, results: dict[str, Any], out: Path) -> str:
  """Writes the results as OUT/NAME.json; returns the text."""
  text = json.dumps(results, indent=1)
  out.mkdir(parents=True, exist_ok=True)
  (out / f"{name}.json").write_text(text + "\n")
  return text


def report(
  name: str, results: dict[str, Any], out: Path, bars: dict[str, float], label: str, where: str | None = None
) -> None:
  """Prints the results and writes them as OUT/NAME.json, with a bar chart beside.

  ``where`` is the machine in a line; by default, this process's.
  """
  where = machine() if where is None else where
  print(write(name, {"machine": where} | results, out))
  with plots.figure(out / f"{name}.png", 7, 0.9 + 0.35 * len(bars), dpi=90) as drawing:
    axes = drawing.add_subplot()
    axes.bar_label(axes.barh(list(bars), list(bars.values()), color="#1f4e8c"), fmt="%.3g", padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel(label)
    axes.set_title(where, fontsize=8)


def times(results: dict[str, Any]) -> dict[str, float]:
  """The bars of `compare`'s result: seconds an image."""
  return {name: row["seconds_per_image"] for name, row in results["sides"].items()}
