"""Where weights come from: a run, a file of ours, a diffusers folder, a file of the original DDIM code."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from ddim_jax import checkpoints, interop
from experiments import config as configs
from experiments import models

_KINDS = (
  "folder of a run, file of experiments.export, folder or hub id of diffusers, or .ckpt or .pth file of the"
  " original DDIM code"
)
Where = Annotated[Path, tyro.conf.arg(aliases=["--from"], help=f"Where the model is: {_KINDS}.")]
"""The option that says where a model is: --workdir, or --from."""
MaybeWhere = Annotated[
  Path | None, tyro.conf.arg(aliases=["--from"], help=f"A model to measure on too: {_KINDS}.")
]
"""The same where a model may be left out."""
_PICKLES = (".ckpt", ".pth")


def read(
  source: Path, step: int | None = None, ema: float | None = None, size: int | None = None
) -> tuple[dict[str, Any], Any]:
  """Reads weights and what is needed to use them.

  Args:
    source: Folder of a run, a file of ``experiments.export``, a folder of diffusers or an id of its hub, or
      a ``.ckpt`` or ``.pth`` file of the original DDIM code.
    step: Checkpoint of a run; the newest by default.
    ema: Decay of the average, of those that a run keeps; its main one by default. 0 takes the model's own
      weights of a ``.ckpt`` file.
    size: Height of the images, where another project's files do not say, or other than they say.

  Returns:
    ``(description, params)``; the description is what a checkpoint keeps: "step", "config", "image",
    "classes".
  """
  if source.suffix == models.SUFFIX:
    _refuse(source, "--step and --ema", step, ema)
    _refuse(source, "--size", size)
    return models.read(source)
  if source.suffix in _PICKLES:
    _refuse(source, "--step", step)
    if ema not in (None, 0):
      raise ValueError(f"{source} has one average: leave out --ema, or give 0 for the model's own, got {ema}")
    return _imported(interop.load_ddim(source, ema=ema is None), size)
  if _ours(source):
    _refuse(source, "--size", size)
    return _run(source, step, ema)
  _refuse(source, "--step and --ema", step, ema)
  return _imported(interop.load_diffusers(source), size)


def _refuse(source: Path, options: str, *values) -> None:
  if any(value is not None for value in values):
    raise ValueError(f"leave out {options} with {source}")


def _ours(source: Path) -> bool:
  """Whether it is a run or a file of this project; any folder is, but one of diffusers."""
  of_diffusers = any((source / name).is_file() for name in ("config.json", "unet/config.json"))
  return source.suffix == models.SUFFIX or (source.is_dir() and not of_diffusers)


def _run(workdir: Path, step: int | None, ema: float | None) -> tuple[dict[str, Any], Any]:
  restored = checkpoints.restore_latest(workdir / "checkpoints", step)
  optimisation = configs.from_json(restored.config["config"]).optimisation
  kept = {decay: f"emas.{i}" for i, decay in enumerate(optimisation.emas)} | {optimisation.ema: "ema"}
  if ema is not None and ema not in kept:
    raise ValueError(f"--ema must be one of {sorted(kept)}, the averages that this run keeps; got {ema}")
  params = checkpoints.subtree(restored.arrays, "ema" if ema is None else kept[ema])
  return {"step": restored.step, **restored.config}, params


def _imported(pretrained: interop.Pretrained, size: int | None) -> tuple[dict[str, Any], Any]:
  """The description and parameters of another project's network.

  Raises:
    ValueError: If the height of its images is not known.
  """
  said = pretrained.config["sample_size"] if size is None else size
  if said is None:
    raise ValueError("the files do not say how large the images are: give --size PIXELS")
  height, width = said if isinstance(said, list) else (said, said)
  network = pretrained.config | {"sample_size": said}
  config = configs.Config(
    data=configs.Data(data=configs.UNKNOWN),
    imported={"config": network, "scheduler": pretrained.scheduler},
  )
  description = {
    "step": 0,
    "config": configs.to_json(config),
    "image": [height, width, pretrained.model.out_channels],
    "classes": [str(label) for label in range(pretrained.model.num_classes or 0)],
  }
  return description, pretrained.variables["params"]


def start(params: Any, source_params: Any) -> Any:
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


def beginning(asked: configs.Config, source: Path, height: int) -> tuple[configs.Config, Any]:
  """The configuration and the parameters of a run that starts from ``source``, on images of this height."""
  description, params = read(source, size=None if _ours(source) else height)
  return configs.adopt(asked, configs.from_json(description["config"])), params


def again(asked: configs.Config, source: Path | None, description: dict[str, Any]) -> configs.Config:
  """The configuration of a run that goes on, whose source may be gone; checks that it is the same source.

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
  return configs.adopt(asked, configs.from_json(description["config"]))
