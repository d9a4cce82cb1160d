"""Peak memory of sampling and of training: ``python -m experiments.bench memory``."""

import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ddim_jax import interop
from experiments.bench import measure, peers
from experiments.bench.sample import sampler
from experiments.bench.train import per_device, stepper

_STEPS = 3

# Run in processes of their own, which print their peak in kilobytes; first argument: a folder of diffusers.
_PEAK = "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
DRAW = f"""
import sys
from experiments.bench import memory
memory.draw(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
{_PEAK}
"""
_TRAIN = f"""
import sys
from experiments.bench import memory
memory.learn(sys.argv[1], int(sys.argv[2]), sys.argv[3] == "remat")
{_PEAK}
"""
_TORCH = f"""
import sys
from experiments.bench import memory, peers
step = peers.train_step(sys.argv[1], int(sys.argv[2]))
for _ in range(memory._STEPS):
  step()
{_PEAK}
"""


def draw(folder: str, batch_size: int, batches: int) -> None:
  """Draws batches of one step each."""
  pretrained = interop.load_diffusers(folder)
  program, variables = sampler(pretrained, 1), jax.device_put(pretrained.variables)
  for i in range(batches):
    x = jax.random.normal(jax.random.key(i), (batch_size, *peers.image_shape(pretrained)))
    np.asarray(program(variables, pretrained.schedule, x, jnp.asarray(pretrained.timesteps(1))))


def _trained(folder, remat: bool) -> interop.Pretrained:
  pretrained = interop.load_diffusers(folder)
  return pretrained._replace(model=pretrained.model.clone(remat=remat))


def learn(folder: str, batch_size: int, remat: bool) -> None:
  """Makes a few steps of training."""
  step = stepper(_trained(folder, remat), batch_size)
  for _ in range(_STEPS):
    step()


def needed(folder: Path, batch_size: int, remat: bool) -> float:
  """Megabytes of the intermediate results of the compiled loss and gradient, by XLA's account."""
  pretrained = _trained(folder, remat)
  x = jnp.zeros((batch_size, *peers.image_shape(pretrained)))

  def loss(variables):
    key = {"dropout": jax.random.key(0)}
    output: Any = pretrained.model.apply(variables, x, jnp.int32(1), train=True, rngs=key)
    return jnp.mean(output**2)

  analysis: Any = jax.jit(jax.value_and_grad(loss)).lower(pretrained.variables).compile().memory_analysis()
  return analysis.temp_size_in_bytes / 2**20


def memory(
  network: peers.Network = "cifar10",
  batch_size: int = 8,
  stream: tuple[int, ...] = (64, 2000),
  out: Path = measure.OUT,
) -> None:
  """Peak memory of processes that draw few and many images, and that train, beside torch.

  Args:
    network: Which network, with random weights.
    batch_size: Images a call.
    stream: Numbers of images, one step each, that processes draw.
    out: Folder for the JSON and the chart.
  """
  measure.positive(batch_size=batch_size, stream=min(stream))
  per_device(batch_size)
  peak = lambda code, *args: int(measure.process(code, *args)[1]) / 1024
  with tempfile.TemporaryDirectory() as place:
    folder = peers.write(network, Path(place))
    peaks = {f"draw {n:,}": peak(DRAW, folder, batch_size, -(-n // batch_size)) for n in stream}
    peaks |= {
      "train": peak(_TRAIN, folder, batch_size, "plain"),
      "train, remat": peak(_TRAIN, folder, batch_size, "remat"),
      "train, torch eager": peak(_TORCH, folder, batch_size),
    }
    need = {name: needed(folder, batch_size, remat) for name, remat in (("plain", False), ("remat", True))}
  results = {
    "network": network, "batch_size": batch_size,
    "peak_megabytes": {name: round(value, 1) for name, value in peaks.items()},
    "megabytes_of_intermediate_results": {name: round(value, 1) for name, value in need.items()},
    "remat_over_plain": round(need["remat"] / need["plain"], 3),
  }  # fmt: skip
  measure.report(f"memory_{network}_b{batch_size}", results, out, peaks, "peak megabytes of a process")
