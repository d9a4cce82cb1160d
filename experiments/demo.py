"""``make demo``: trains a real DDIM on real digits in minutes, then shows what S and eta do."""

import sys
from dataclasses import replace
from pathlib import Path

from ddim_jax.commands import cli, options
from ddim_jax.commands.compare import compare
from ddim_jax.commands.presets import digits
from ddim_jax.commands.sample_images import Args, sample
from ddim_jax.commands.train_model import train


def demo(workdir: Path = Path("runs/demo"), max_minutes: float = 4.0) -> int:
  """Draws clothes with the model that comes along, then trains one on digits, told which, and draws them.

  Args:
    workdir: Folder of the run; the pictures are fashion_mnist.png and demo.png in it.
    max_minutes: Longest time to train; a run that is there goes on, or is found to be done.

  Returns:
    The exit status.
  """
  sample(Args(num=16, out=workdir / "fashion_mnist.png"))
  preset = digits()
  run = replace(preset.run, workdir=workdir, steps=600, max_minutes=max_minutes, sample_every=0)
  rates = replace(preset.optimisation, learning_rate=4e-3, learning_rate_schedule="cosine")
  preset = replace(preset, run=run, network=replace(preset.network, conditional=True), optimisation=rates)
  if status := train(preset):
    return status
  compare(str(workdir), steps=(5, 10, 20, 50), out=workdir / "demo.png")
  print(f"next: .venv/bin/ddim sample {workdir} --class 7 --guidance 2")
  return 0


if __name__ == "__main__":
  cli.run(lambda: options.parse(demo, sys.argv[1:], "demo"), batch_size=digits().optimisation.batch_size)
