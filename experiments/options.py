"""Options that several programs have."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from ddim_jax.models import load
from ddim_jax.models.config import Data
from ddim_jax.models.model import Model

_KINDS = (
  "folder of a run, .safetensors file, folder or hub id of diffusers, .ckpt, .pth or .pt file of the original"
  " DDIM code, or the name of a model that comes along (fashion_mnist, fashion_mnist_classes)"
)
Where = Annotated[Path, tyro.conf.arg(aliases=["--from"], help=f"Where the model is: {_KINDS}.")]
"""The option that says where a model is: --workdir, or --from."""
MaybeWhere = Annotated[
  Path | None, tyro.conf.arg(aliases=["--from"], help=f"A model to measure on too: {_KINDS}.")
]
"""The same where a model may be left out."""


def model(
  where: Path,
  step: int | None = None,
  ema: float | None = None,
  size: int | None = None,
  data_set: str | None = None,
) -> Model:
  """The model; with ``data_set``, another data set to compare with than it was trained on."""
  found = load(str(where), step=step, ema=ema, size=size)
  if data_set is None:
    return found
  return found.replace(config=dataclasses.replace(found.config, data=Data(data_set)))


def results_folder(workdir: Path) -> Path:
  """Where pictures go that --out does not name: into the run's folder, or here if the model is no run."""
  return workdir if (workdir / "checkpoints").is_dir() else Path()
