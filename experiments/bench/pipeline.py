"""Batches against the training that consumes them: ``python -m experiments.bench pipeline``."""

import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import jax
import numpy as np

from ddim_jax import data
from ddim_jax.runs.update import local_batch
from experiments.bench import measure, noise


def pipeline(
  preset: str = "fashion_mnist",
  batch_size: int = 64,
  steps: int = 20,
  rounds: int = 3,
  images: int = 50_000,
  out: Path = measure.OUT,
) -> None:
  """Images a second of the pipeline alone and of training on it, and how long training waits for a batch.

  And what the prefetching thread of a run delivers of 32x32 images in colour, mirrored at random, where
  nothing waits for anything: in batches of 256, from memory and from a memory-mapped file. A GPU is fed if
  that is more than the images a second on which it trains.

  Args:
    preset: Preset of ddim train whose network and batches are measured, on images of noise.
    batch_size: Images a batch.
    steps: Batches a measurement.
    rounds: How often each side is measured, in turn.
    images: Number of the 32x32 images.
    out: Folder for the JSON and the chart.
  """
  measure.positive(batch_size=batch_size, steps=steps, rounds=rounds, images=images)
  if preset not in noise.SHAPES:
    raise ValueError(f"--preset must be one of {sorted(noise.SHAPES)}, got {preset!r}")
  state, make_batch, update = noise.prepare(preset, batch_size, images=max(2_000, batch_size))
  waited: list[float] = []

  def deliver():
    for step in range(steps):
      make_batch(step)

  def consume():
    nonlocal state
    batches, stalled = data.prefetch(make_batch, 0, steps), 0.0
    for number in range(steps):
      began = time.perf_counter()
      batch = next(batches)
      stalled += (time.perf_counter() - began) * (number > 0)  # the first has nothing to hide behind
      state, metrics = update(state, batch)
      jax.block_until_ready(metrics)
    waited.append(stalled)

  seconds = measure.alternate({"pipeline alone": deliver, "training": consume}, rounds)
  rate = {name: batch_size * steps / statistics.median(times) for name, times in seconds.items()}
  stall = [wait / total for wait, total in zip(waited[1:], seconds["training"], strict=True)]
  results = {
    "preset": preset, "batch_size": batch_size, "steps": steps, "rounds": rounds,
    "images_per_second": {name: round(value, 1) for name, value in rate.items()},
    "pipeline_over_training": round(rate["pipeline alone"] / rate["training"], 1),
    "fraction_waited_median": round(statistics.median(stall), 5),
    "fraction_waited_largest": round(max(stall), 5),
    "prefetched_32x32_images_per_second": _prefetched(images, rounds),
  }  # fmt: skip
  measure.report(f"pipeline_{preset}_b{batch_size}", results, out, rate, "images a second")


def _prefetched(images: int, rounds: int, batch_size: int = 256, steps: int = 100) -> dict[str, float]:
  """Images a second, by where they are kept."""
  random = np.random.default_rng(0)
  array = random.integers(0, 256, (images, 32, 32, 3), np.uint8)
  with tempfile.TemporaryDirectory() as folder:
    stored = np.lib.format.open_memmap(Path(folder, "images.npy"), "w+", np.uint8, array.shape)
    stored[:] = array
    sources = {"in memory": data.in_memory("noise", array), "memory-mapped": data.in_memory("noise", stored)}

    def deliver(source: data.Source) -> None:
      make = lambda step: local_batch(source, step, batch_size=batch_size, flip=True)
      for _ in data.prefetch(make, 0, steps):
        pass

    sides: measure.Sides = {name: partial(deliver, source) for name, source in sources.items()}
    seconds = measure.alternate(sides, rounds)
  return {name: round(batch_size * steps / statistics.median(times)) for name, times in seconds.items()}
