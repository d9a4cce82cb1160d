"""A training step on fake devices: ``python -m experiments.bench scaling``."""

import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np

from experiments.bench import measure, noise


def time_steps(preset: str, batch_size: int, steps: int) -> float:
  """Seconds a training step of a preset's network takes on the devices of this process."""
  state, make_batch, advance = noise.prepare(preset, batch_size)
  seconds = []
  for step in range(steps + 2):
    batch = make_batch(step)
    began = time.perf_counter()
    state, metrics = advance(state, batch)
    jax.block_until_ready((state, metrics))
    seconds.append(time.perf_counter() - began)
  return float(np.median(seconds[2:]))


def scaling(
  preset: str = "fashion_mnist",
  batch_size: int = 64,
  devices: tuple[int, ...] = (1, 2, 4, 8),
  steps: int = 10,
  rounds: int = 2,
  out: Path = measure.OUT,
) -> None:
  """Seconds of a training step on fake devices that share the CPU; global batch and work are constant.

  Args:
    preset: fashion_mnist or digits, the network that is measured.
    batch_size: Global batch, a multiple of all numbers of devices.
    devices: Numbers of fake devices; the first is what the others are compared with.
    steps: Steps a measurement, each in a process of its own.
    rounds: How often each number of devices is measured, in turn.
    out: Folder for the JSON and the chart.
  """
  measure.positive(batch_size=batch_size, steps=steps, rounds=rounds, devices=min(devices))
  if preset not in ("fashion_mnist", "digits"):
    raise ValueError(f"--preset must be fashion_mnist or digits, got {preset!r}")
  if any(batch_size % number for number in devices):
    raise ValueError(f"--batch-size must be a multiple of all of --devices {devices}, got {batch_size}")
  call = f"time_steps({preset!r}, {batch_size}, {steps})"
  code = f"from experiments.bench.many_devices import time_steps; print({call})"
  taken: dict[int, list[float]] = {number: [] for number in devices}
  for _ in range(rounds):
    for number in devices:
      flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={number}"
      done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        check=True, stdout=subprocess.PIPE, text=True,
      )  # fmt: skip
      taken[number].append(float(done.stdout))
  medians = {str(number): float(np.median(times)) for number, times in taken.items()}
  first = medians[str(devices[0])]
  results = {
    "preset": preset, "batch_size": batch_size, "steps": steps, "rounds": rounds,
    "seconds_per_step": {name: round(value, 4) for name, value in medians.items()},
    "range": {number: [round(min(times), 4), round(max(times), 4)] for number, times in taken.items()},
    "overhead": {name: round(value / first - 1, 3) for name, value in medians.items()},
  }  # fmt: skip
  measure.report(f"scaling_{preset}", results, out, medians, "seconds a step, by number of fake devices")
