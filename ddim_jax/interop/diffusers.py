"""Folders of diffusers: an unconditional or class-conditional pipeline around a UNet2DModel."""

import json
from pathlib import Path
from typing import Any

from ddim_jax.atomic import replacing
from ddim_jax.interop import adm_configs, files, names, schedulers
from ddim_jax.interop.assembly import assemble, parameter_shapes
from ddim_jax.interop.pretrained import Pretrained
from ddim_jax.places import is_hub_name, local


def folder_of(path: str | Path) -> Path:
  """A local folder, downloaded if it is an id of the Hugging Face hub.

  Raises:
    ValueError: If it is neither, or cannot be downloaded.
  """
  text, folder = str(path), local(path, "path")
  if folder.is_dir():
    return folder
  if folder.exists() or not is_hub_name(text):
    raise ValueError(f"{path} is not a folder, nor OWNER/NAME of the hub")
  try:
    import huggingface_hub
    from huggingface_hub.errors import (
      HfHubHTTPError,
      HFValidationError,
      LocalEntryNotFoundError,
      OfflineModeIsEnabled,
    )
  except ImportError as error:
    raise ValueError(
      f"{path} is not a local folder; to download it as an id of the hub, pip install huggingface_hub"
    ) from error
  wanted = ["*.json", "*.safetensors", "*.bin", "unet/*", "scheduler/*"]
  try:
    return Path(huggingface_hub.snapshot_download(text, allow_patterns=wanted, etag_timeout=5))
  except HFValidationError as error:
    raise ValueError(f"{path} is not a folder, nor OWNER/NAME of the hub") from error
  except (HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
    raise ValueError(
      f"{path} is not a local folder and cannot be downloaded ({type(error).__name__}): give the path of"
      " a folder, or go online"
    ) from error


def _check_index(folder: Path, scheduler: dict[str, Any]) -> None:
  """Refuses a pipeline whose index contradicts what is read."""
  if not (folder / "model_index.json").is_file():
    return
  index = files.read_json(folder / "model_index.json")
  unet, listed = index.get("unet", [None, None]), index.get("scheduler", [None, None])
  if unet[-1] != "UNet2DModel":
    raise ValueError(f"{folder}: unet must be a UNet2DModel, model_index.json says {unet[-1]!r}")
  if listed[-1] != scheduler.get("_class_name"):
    raise ValueError(
      f"{folder}: model_index.json names {listed[-1]!r}, the scheduler's own file"
      f" {scheduler.get('_class_name')!r}"
    )
  if extra := sorted(
    k for k, v in index.items() if k[0] != "_" and k not in ("unet", "scheduler") and v is not None
  ):
    raise ValueError(f"{folder}: parts of the pipeline that are not supported: {', '.join(extra)}")


def load_diffusers(path: str | Path, *, scheduler: dict[str, Any] | None = None) -> Pretrained:
  """Reads a pipeline or a model that diffusers has saved.

  Args:
    path: A folder: ``config.json`` and weights in it or in ``unet/``, ``scheduler_config.json`` in it or
      in ``scheduler/``. Else an id of the Hugging Face hub, if huggingface_hub is installed.
    scheduler: Configuration of a scheduler, with its ``_class_name``, instead of the folder's.

  Returns:
    See `Pretrained`. Where diffusers' own steps are inconsistent, see `like_diffusers`.

  Raises:
    ValueError: If something is missing or not supported, or weights and configuration disagree.
  """
  folder = folder_of(path)
  unet = folder / "unet" if (folder / "unet" / "config.json").is_file() else folder
  if not (unet / "config.json").is_file():
    raise ValueError(f"{folder} has no config.json, nor unet/config.json")
  places = (folder / "scheduler" / "scheduler_config.json", folder / "scheduler_config.json")
  found = next((place for place in places if place.is_file()), None)
  if scheduler is None:
    if found is None:
      raise ValueError(f"{folder} has no scheduler/scheduler_config.json: pass scheduler={{...}}")
    scheduler = files.read_json(found)
    _check_index(folder, scheduler)
  read = lambda: {names.modern(name): array for name, array in files.read_folder(unet).items()}
  return assemble(read, files.read_json(unet / "config.json"), scheduler, names.to_diffusers, str(unet))


_KEPT = ("DDPM", "DPMSolverMultistepScheduler", "DPMSolverSinglestep", "SASolver", "FlowMatch")
"""Schedulers that work as DDPMPipeline asks them: samples as they are, from unit noise, and a generator."""


def pipeline_of(pretrained: Pretrained) -> str | None:
  """The pipeline of diffusers that draws from these files; None if each would ask such a network wrongly.

  DDPMPipeline draws with the scheduler itself. DDIMPipeline puts a DDIMScheduler with the same noise in its
  place, which gives the network the sample and a whole timestep: wrong for a network of EDM or flow matching,
  and for one that is told log(sigma) / 4.
  """
  config = pretrained.scheduler
  if config["_class_name"].startswith(_KEPT):
    return "DDPMPipeline"
  otherwise = config["_class_name"].startswith("EDM") or config.get("use_flow_sigmas")
  return None if otherwise or schedulers.continuous(config) else "DDIMPipeline"


def save_diffusers(directory: str | Path, pretrained: Pretrained) -> None:
  """Writes a folder that a pipeline of diffusers loads, see `pipeline_of`.

  Where there is no such pipeline the folder has no ``model_index.json``: network and scheduler are loaded by
  themselves, by ``UNet2DModel.from_pretrained(folder, subfolder="unet")`` and so on, or by `load_diffusers`.

  Args:
    directory: Created; must not exist, or be empty.
    pretrained: From `load_diffusers` or `load_ddim`, perhaps with other variables.

  Raises:
    ValueError: If the directory is not empty, the parameters do not fit the configuration, or diffusers has
      no such network.
  """
  from safetensors.numpy import save_file

  if (kind := pretrained.config.get("_class_name")) == adm_configs.CLASS:
    raise ValueError(
      f"diffusers has no {kind} of guided-diffusion: write a .safetensors file of ours instead"
    )
  folder = files.new_folder(directory)
  levels = len(pretrained.model.multipliers)
  weights = names.export(pretrained.variables["params"], levels, names.to_diffusers)
  names.convert(weights, parameter_shapes(pretrained.model), levels, names.to_diffusers, "the variables")

  def write(name: str, values: dict[str, Any]) -> None:
    with replacing(folder / name) as partial:
      partial.write_text(json.dumps(values, indent=2) + "\n")

  with replacing(folder / "unet" / "diffusion_pytorch_model.safetensors") as partial:
    save_file(weights, partial, metadata={"format": "pt"})
  write("unet/config.json", {"_class_name": "UNet2DModel"} | pretrained.config)
  write("scheduler/scheduler_config.json", pretrained.scheduler)
  if (pipeline := pipeline_of(pretrained)) is not None:
    parts = {"scheduler": pretrained.scheduler["_class_name"], "unet": "UNet2DModel"}
    index = {name: ["diffusers", kind] for name, kind in parts.items()}
    write("model_index.json", {"_class_name": pipeline} | index)
