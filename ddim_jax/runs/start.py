"""How a run starts: fresh, from weights that are there, or from its own checkpoint."""

from pathlib import Path
from typing import Any

import numpy as np

from ddim_jax import checkpoints
from ddim_jax.models import build, load
from ddim_jax.models.config import Config
from ddim_jax.models.load import is_run


def fill_in(params: Any, source_params: Any) -> Any:
  """Fresh parameters with those of a source in their place.

  Only the table of classes may be missing there or of another length: then all its rows are zero, and the
  network is at first what it was without labels.

  Raises:
    ValueError: If anything else differs; names it.
  """
  fresh, found = checkpoints.flatten(params), checkpoints.flatten(source_params)
  for name, value in fresh.items():
    if name == "classes.embedding" and (name not in found or found[name].shape != value.shape):
      print(f"classes     {value.shape[0]} rows, new: the source has none for these classes", flush=True)
      found[name] = np.zeros_like(value)
  if "classes.embedding" not in fresh:
    found.pop("classes.embedding", None)
  return checkpoints.fill(params, found)


def beginning(asked: Config, source: Path, height: int) -> tuple[Config, Any]:
  """The configuration and the parameters of a run that starts from ``source``, on images of this height."""
  model = load(str(source), size=None if is_run(source) else height)
  return build.adopt(asked, model.config), model.params


def again(asked: Config, source: Path | None, description: dict[str, Any]) -> Config:
  """The configuration for resuming a run; the files it began from need not exist any more.

  Raises:
    ValueError: If the run began from other weights, or from none.
  """
  began = description.get("from")
  if (None if source is None else str(source)) != began:
    said = "was not given a --from" if began is None else f"began with --from {began}"
    asked_for = "without it" if source is None else f"with --from {source}"
    raise ValueError(f"this run {said} and cannot go on {asked_for}")
  if source is None:
    return asked
  return build.adopt(asked, build.from_json(description["config"]))


def differences(saved: Config, asked: Config) -> list[str]:
  """Fields that decide the model and differ, as ``name: saved, asked``.

  Where the data lies and what computes the convolutions do not decide it.
  """
  old, new = build.to_json(saved), build.to_json(asked)
  return [
    f"{name}: {old[section].get(name)!r} in the checkpoint, {value!r} asked for"
    for section in ("data", "model", "diffusion", "optimisation")
    for name, value in new[section].items()
    if name not in ("data_dir", "conv") and old[section].get(name) != value
  ]
