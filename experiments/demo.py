"""``make demo``: trains a real DDIM on real digits in minutes, then shows what S and eta do."""

import dataclasses
from pathlib import Path

from experiments import cli, loop
from experiments.compare import Args, compare
from experiments.presets import Run, digits

WORKDIR = Path("runs/demo")
_MINUTES = 4.0


def main() -> int:
  """Trains (or goes on, or finds it done), samples, and writes one picture."""
  preset = digits()
  run = Run(WORKDIR, steps=preset.run.steps, save_every=500, sample_every=500, max_minutes=_MINUTES)
  if status := loop.train(dataclasses.replace(preset, run=run)):
    return status
  compare(Args(WORKDIR, steps=(5, 10, 20, 50), out=WORKDIR / "demo.png"))
  return 0


if __name__ == "__main__":
  cli.run(main)
