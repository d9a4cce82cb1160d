"""``ddim inspect``: what a run, a model or a data set holds."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from ddim_jax import checkpoints, plots, ranges
from ddim_jax.commands import options, outputs
from ddim_jax.data import report as reports
from ddim_jax.data.sources import UnsaidError
from ddim_jax.models import build, datasets, load, packaged, tree
from ddim_jax.models.config import UNKNOWN, Data
from ddim_jax.models.loading import PICKLES, is_diffusers
from ddim_jax.places import local
from ddim_jax.runs import logs


def _size(folder: Path) -> int:
  return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())


_HELP = (
  "A model, the folder of a run, a picture that was drawn, or data: a folder of pictures, a .npy or .npz"
  " file, hf:NAME or tfds:NAME."
)
What = Annotated[str, tyro.conf.Positional, tyro.conf.arg(help=_HELP, metavar="WHAT")]
_UNSAID = Data(UNKNOWN)
_THUMBNAIL = "64"


def inspect(
  model: What = options.DEFAULT,
  *,
  data: Data = _UNSAID,
  out: options.MaybeOut = None,
  flags: options.Flags = None,
) -> int:
  """Says what a model is, or how a picture was made; of a run, its loss and whether checkpoints are sound.

  Of data that you have, a folder of pictures, a .npy or .npz file, hf:NAME or tfds:NAME in place of the
  model: says how many there are, sizes, modes, classes, what cannot be used and why, and what the numbers
  are; and draws a contact sheet. Nothing is trained. Pictures of several sizes are shown 64x64 unless you say
  --image-size; broken ones are skipped and named.

  ddim inspect runs/mine

  ddim inspect sample.png

  ddim inspect photos

  ddim inspect scans.npy --values 0 4095

  Args:
    model: What to look at.
    data: How data are read, as for ddim train; --data says which, too, such as digits.
    out: The contact sheet, a .png file; by default contact_sheet.png here.
    flags: See `options.Flags`.

  Returns:
    1 if a checkpoint is damaged, else 0.
  """
  ranges.check_all(data)
  if flags is not None and not model.endswith(PICKLES):
    raise ValueError(f"flags goes with a {' or '.join(PICKLES)} file, which {model} is not")
  if data.data != UNKNOWN or _is_data_set(model):
    _inspect_data(data if data.data != UNKNOWN else dataclasses.replace(data, data=model), out)
    return 0
  if data != _UNSAID or out is not None:
    raise ValueError(f"out and how data are read go with data, which {model} is not")
  workdir = local(model, "model")
  if workdir.is_dir() and ((workdir / "checkpoints").is_dir() or (workdir / "metrics.jsonl").is_file()):
    return _inspect_run(workdir)
  if workdir.suffix.lower() in plots.PICTURES and workdir.is_file():
    _print_settings(workdir)
    return 0
  found = load(model, flags=flags)
  parameters, shape = tree.size(found.params), "x".join(map(str, found.shape))
  print(f"{type(found.network).__name__}: {parameters:,} parameters, images {shape}")
  print(f"T = {found.schedule.T}; {f'{found.step:,} updates' if found.step else 'of another project'}")
  print(f"solver: {found.solver_name}")
  print(f"classes: {', '.join(found.classes) or 'none'}")
  print(f"values: {found.scaling}")
  if found.conditions is not None:
    print(f"conditions: {found.condition_size} numbers, {found.conditions}")
  _print_config(build.to_json(found.config))
  return 0


def _print_settings(picture: Path) -> None:
  settings = plots.read_settings(picture)
  if settings is None:
    raise ValueError(f"{picture} does not say how it was made")
  for name, value in settings.items():
    print(f"{name}: {' '.join(f'{t:g}' for t in value) if name == 'levels' else value}")


def _is_data_set(where: str) -> bool:
  """Whether it names data, and neither a run nor a model."""
  if where in packaged():
    return False
  if datasets.kind_of(where)[0] in ("hf", "tfds", "array") or where.startswith("folder:"):
    return True
  folder = local(where, "model")
  run = any((folder / name).exists() for name in ("checkpoints", "metrics.jsonl", "model_index.json"))
  return folder.is_dir() and not run and not is_diffusers(folder)


def _inspect_data(found: Data, out: Path | None) -> None:
  """Prints the report and writes the contact sheet."""
  place = outputs.place(out, "", "contact_sheet.png")
  kind, _ = datasets.kind_of(found.data)
  if kind in ("folder", "hf"):
    found = dataclasses.replace(found, skip_broken=True)
    if found.image_size is None and found.crop is None:
      found = dataclasses.replace(found, image_size=_THUMBNAIL, fit="pad")
  unsaid = False
  with datasets.bar() as progress:
    try:
      source = datasets.open_data(found, progress=progress)
    except UnsaidError:
      unsaid = True
      source = datasets.open_data(dataclasses.replace(found, values=("minmax",)), progress=progress)
  report = reports.inspect(source)
  print(report)
  if unsaid:
    print("            what these mean is not said; training asks: --values LOW HIGH, minmax or standardise")
  if report.sheet is not None:
    plots.save_png(place, report.sheet)
    print(f"contact sheet: {place.absolute()}")


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
  options.run(inspect, argv, "ddim inspect", Data)
