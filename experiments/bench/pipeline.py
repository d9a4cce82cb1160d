"""Batches against the training that consumes them: ``python -m experiments.bench pipeline``."""

import statistics
import time
from pathlib import Path

import jax

from ddim_jax import data
from experiments.bench import measure, noise


def pipeline(
  preset: str = "fashion_mnist",
  batch_size: int = 64,
  steps: int = 20,
  rounds: int = 3,
  out: Path = measure.OUT,
) -> None:
  """Images a second of the pipeline alone and of training on it, and how long training waits for a batch.

  Args:
    preset: Preset of ddim train whose network and batches are measured, on images of noise.
    batch_size: Images a batch.
    steps: Batches a measurement.
    rounds: How often each side is measured, in turn.
    out: Folder for the JSON and the chart.
  """
  measure.positive(batch_size=batch_size, steps=steps, rounds=rounds)
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
  }  # fmt: skip
  measure.report(f"pipeline_{preset}_b{batch_size}", results, out, rate, "images a second")
