"""``ddim inspect``: what a run or a model holds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ddim_jax import checkpoints, plots
from ddim_jax.commands import options
from ddim_jax.models import build, load
from ddim_jax.places import local
from ddim_jax.runs import logs


def _size(folder: Path) -> int:
  return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())


def inspect(model: options.Where = options.DEFAULT) -> int:
  """Says what a model is, or how a picture was made; of a run, its loss and whether checkpoints are sound.

  ddim inspect runs/mine

  ddim inspect sample.png

  Args:
    model: The model, the folder of a run, or a picture that was drawn.

  Returns:
    1 if a checkpoint is damaged, else 0.
  """
  workdir = local(model, "model")
  if workdir.is_dir() and ((workdir / "checkpoints").is_dir() or (workdir / "metrics.jsonl").is_file()):
    return _inspect_run(workdir)
  if workdir.suffix.lower() in plots.PICTURES and workdir.is_file():
    _print_settings(workdir)
    return 0
  found = load(model)
  height, width, channels = found.shape
  parameters = sum(np.size(leaf) for leaf in jax.tree.leaves(found.params))
  print(f"{type(found.network).__name__}: {parameters:,} parameters, images {height}x{width}x{channels}")
  print(f"T = {found.schedule.T}; {f'{found.step:,} updates' if found.step else 'of another project'}")
  print(f"classes: {', '.join(found.classes) or 'none'}")
  _print_config(build.to_json(found.config))
  return 0


def _print_settings(picture: Path) -> None:
  settings = plots.read_settings(picture)
  if settings is None:
    raise ValueError(f"{picture} does not say how it was made")
  for name, value in settings.items():
    print(f"{name}: {' '.join(f'{t:g}' for t in value) if name == 'levels' else value}")


def _print_config(config: dict[str, Any]) -> None:
  for section, values in config.items():
    if isinstance(values, dict):
      print(f"{section}: " + ", ".join(f"{name} {value}" for name, value in values.items()))
    else:
      print(f"{section}: {values}")


def _inspect_run(workdir: Path) -> int:
  """Prints the report and writes WORKDIR/loss.png; the status is 1 if a checkpoint is damaged."""
  folder, damaged, config = workdir / "checkpoints", 0, None
  for step in checkpoints.steps(folder):
    try:
      config = checkpoints.restore_latest(folder, step).config
      verdict = "sound"
    except checkpoints.DamagedError as error:
      damaged, verdict = damaged + 1, f"DAMAGED: {error}"
    print(f"step {step:>9,}  {_size(folder / str(step)) / 1e6:8.1f} MB  {verdict}")
  _print_config((config or {}).get("config", {}))
  lines = [values for values, _ in logs.read_metrics(workdir / "metrics.jsonl")]
  if lines:
    print("last metrics: " + ", ".join(f"{name} {value:.6g}" for name, value in lines[-1].items()))
    steps, losses = (np.array([line[name] for line in lines]) for name in ("step", "loss"))
    plots.save_curve(workdir / "loss.png", steps, losses, f"{workdir.name}: loss", "loss")
    print(f"loss curve: {workdir / 'loss.png'}")
  else:
    print("no metrics yet")
  return 1 if damaged else 0


def main(argv: Sequence[str]) -> None:
  """Parses, reports and exits."""
  options.run(inspect, argv, "ddim inspect")
