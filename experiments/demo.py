"""``make demo``: trains a real DDIM on real digits in minutes, then shows what S and eta do."""

import dataclasses
import time
from pathlib import Path

import numpy as np

from ddim_jax import plots, timesteps
from experiments import cli, loop, sampler
from experiments.presets import Run, digits

WORKDIR = Path("runs/demo")
_MINUTES = 4.0
_STEPS, _ETAS = (5, 10, 20, 50), (0.0, 1.0)
_SIDE = 5


def main() -> int:
  """Trains (or goes on, or finds it done), samples, and writes one picture."""
  preset = digits()
  run = Run(WORKDIR, steps=preset.run.steps, save_every=500, sample_every=500, max_minutes=_MINUTES)
  if status := loop.train(dataclasses.replace(preset, run=run)):
    return status

  trained = sampler.load(WORKDIR)
  indices = np.arange(_SIDE**2)
  blocks: dict[float, list[np.ndarray]] = {eta: [] for eta in _ETAS}
  for steps in _STEPS:
    ts = timesteps.uniform(trained.schedule.T, steps)
    for eta in _ETAS:
      _, draw = sampler.numbered_images(trained, ts, eta=eta, per_device=_SIDE**2)
      draw(indices)  # compiles
      began = time.monotonic()
      images = draw(indices)
      seconds = time.monotonic() - began
      print(f"S = {steps:2d}, eta = {eta:.0f}: {len(images)} digits in {seconds:.2f} s; levels {ts.tolist()}")
      blocks[eta].append(plots.enlarge(plots.grid(images, columns=_SIDE), 176))
  rows = [f"eta = {eta:.0f}" for eta in _ETAS]
  picture = plots.table(list(blocks.values()), rows, [f"S = {steps}" for steps in _STEPS])
  out = WORKDIR / "demo.png"
  plots.save_png(out, picture)
  print(f"picture: {out.absolute()}")
  return 0


if __name__ == "__main__":
  cli.run(main)
