"""Fake devices, measured, and accelerators, computed: ``python -m experiments.bench scaling``."""

import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import ddim_jax
from ddim_jax import training
from experiments.bench import measure, noise
from experiments.bench.train import update


class _Device(NamedTuple):
  """Peak numbers of a maker's data sheet, a chip; links one way, all together."""

  name: str
  tflops: float
  memory_gb_per_second: float
  link_gb_per_second: float


_DEVICES = (_Device("TPU v4", 275, 1228, 300), _Device("H100 SXM", 989, 3350, 450))
_NETWORKS: dict[str, tuple[dict[str, Any], int]] = {
  "CIFAR-10, 32 x 32": ({"attention": (16,)}, 32),
  "LSUN and CelebA-HQ, 256 x 256": ({"multipliers": (1, 1, 2, 2, 4, 4), "dropout": 0.0}, 256),
}
_TINY: dict[str, tuple[dict[str, Any], int]] = {
  "8 channels, 8 x 8": ({"channels": 8, "multipliers": (1, 1), "attention": (), "groups": 4}, 8)
}
_HEAD = """# Training steps on accelerators: computed, not measured

Nothing on this page was measured on an accelerator. FLOPs are XLA's own count for the training step
(forward, backward, Adam, average) as written, before compilation; peak rates are the makers' (bfloat16
products). The time of a step is the larger of FLOPs at {efficiency:.0%} of the peak rate, and of reading and
writing parameters, gradients, optimiser state and average at full memory bandwidth; the traffic of
activations and the input are left out, and so is their memory. Gradients are summed over devices by a ring,
which sends nearly twice their size, at full link bandwidth, overlapped with nothing. Below the batch in the
last column that sum takes longer than the computation: communication dominates. There is one sum of
gradients a step, and a few of scalars. State is 20 bytes a parameter: parameters, average,
two moments, gradients.

Written by `python -m experiments.bench scaling`.
"""
_COLUMNS = (
  "| device | step of 16 images a device, ms | images/s a device | sum of gradients, ms"
  " | batch a device below which the sum takes longer |\n|---|---|---|---|---|"
)


def _step_gflop(model, size: int) -> tuple[int, float, float]:
  """Parameters, GFLOP of a training step an image, and those that do not depend on the batch."""
  optimizer = optax.adam(2e-4)
  step = update(model, ddim_jax.linear_schedule(), optimizer, training.warm_decay())
  x = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
  params = jax.eval_shape(model.init, jax.random.key(0), x, jnp.ones((), jnp.int32))["params"]
  state = jax.eval_shape(lambda p: training.create_state(p, optimizer), params)

  def count(batch):
    images = jax.ShapeDtypeStruct((batch, size, size, 3), jnp.float32)
    labels = jax.ShapeDtypeStruct((batch,), jnp.int32)
    cost: Any = jax.jit(step).lower(state, jax.random.key(0), images, labels).cost_analysis()
    return cost["flops"] / 1e9

  one, two = count(1), count(2)
  return sum(leaf.size for leaf in jax.tree.leaves(params)), two - one, 2 * one - two


def page(networks: dict[str, tuple[dict[str, Any], int]], efficiency: float) -> str:
  """Predicted training steps, as Markdown, for ``{title: (options of the U-Net, image size)}``."""
  lines = [_HEAD.format(efficiency=efficiency)]
  for title, (options, size) in networks.items():
    parameters, each, fixed = _step_gflop(ddim_jax.UNet(**options, conv="direct"), size)
    facts = (
      f"{parameters / 1e6:.1f} M parameters; {each:.1f} GFLOP an image and {max(fixed, 0):.2f} a step;"
      f" {4 * parameters / 1e6:.0f} MB of gradients summed a step; {20 * parameters / 1e9:.2f} GB of state."
    )
    lines += [f"## {title}\n", facts + "\n", _COLUMNS]
    for device in _DEVICES:
      image = each / (1e3 * device.tflops * efficiency)  # seconds
      # Read: parameters, gradients, two moments, average; written: all of these.
      state = 10 * 4 * parameters / (1e9 * device.memory_gb_per_second)
      step = max(16 * image, state)
      reduce = 2 * 4 * parameters / (1e9 * device.link_gb_per_second)
      lines.append(
        f"| {device.name} | {1e3 * step:.2f} | {16 / step:,.0f} | {1e3 * reduce:.2f} |"
        f" {max(1, math.ceil(reduce / image))} |"
      )
    lines.append("")
  return "\n".join(lines)


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
  efficiency: float = 0.4,
  tiny: bool = False,
  out: Path = measure.OUT,
) -> None:
  """Seconds of a training step on fake devices that share the CPU, the global batch and so the work constant;
  and a page of predictions for accelerators, from XLA's count of the operations of the published networks.

  Args:
    preset: fashion_mnist or digits, the network that is measured.
    batch_size: Global batch, a multiple of all numbers of devices.
    devices: Numbers of fake devices; the first is what the others are compared with.
    steps: Steps a measurement, each in a process of its own.
    rounds: How often each number of devices is measured, in turn.
    efficiency: Fraction of the peak rate that the predictions assume, in (0, 1].
    tiny: Predict for a network of 8 channels instead, for tests.
    out: Folder for the JSON, the chart and the page.
  """
  measure.positive(batch_size=batch_size, steps=steps, rounds=rounds, devices=min(devices))
  if not 0 < efficiency <= 1:
    raise ValueError(f"--efficiency must be in (0, 1], got {efficiency}")
  if preset not in ("fashion_mnist", "digits"):
    raise ValueError(f"--preset must be fashion_mnist or digits, got {preset!r}")
  if any(batch_size % number for number in devices):
    raise ValueError(f"--batch-size must be a multiple of all of --devices {devices}, got {batch_size}")
  code = (
    f"from experiments.bench import scaling; print(scaling.time_steps({preset!r}, {batch_size}, {steps}))"
  )
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
  (out / "accelerators.md").write_text(page(_TINY if tiny else _NETWORKS, efficiency))
  print(f"wrote {out / 'accelerators.md'}")
