"""A configuration and what a file keeps beside weights, as JSON values and back."""

import dataclasses
from pathlib import Path
from typing import Any

from ddim_jax.models.config import Config, Data, Diffusion, Network, Optimisation
from ddim_jax.models.model import Model
from ddim_jax.scaling import Scaling

_SECTIONS = {"data": Data, "model": Network, "diffusion": Diffusion, "optimisation": Optimisation}
FIELDS = {"model": "network"}
"""Sections of the JSON whose field in `Config` has another name."""
_PATHS = ("data_dir", "table")
OPEN = {"model": ("label_dropout", "dtype", "remat"), "diffusion": ("weighting", "antithetic", "spacing")}
"""What a network with weights of its own leaves to the options."""
WHOLE = ("imported", "custom")
"""Entries of the JSON beside the sections."""


def to_json(config: Config) -> dict[str, Any]:
  """JSON values; paths become strings. What imported files decide stands only under "imported"."""
  values = dataclasses.asdict(config)
  sections = {name: values[FIELDS.get(name, name)] for name in _SECTIONS}
  sections["data"] |= {key: sections["data"][key] and str(sections["data"][key]) for key in _PATHS}
  if config.imported is not None:
    sections |= {
      section: {name: sections[section][name] for name in names} for section, names in OPEN.items()
    }
  return sections | {name: values[name] for name in WHOLE if values[name]}


def from_json(values: dict[str, Any]) -> Config:
  """The inverse of `to_json`; a field younger than the checkpoint has its default.

  Raises:
    ValueError: If a section or field is unknown.
  """
  sections = {}
  for name, kind in _SECTIONS.items():
    found = values.get(name, {})
    if unknown := set(found) - {field.name for field in dataclasses.fields(kind)}:
      raise ValueError(f"the checkpoint is of a newer version: {name} has {sorted(unknown)}")
    found = {key: tuple(v) if isinstance(v, list) else v for key, v in found.items()}
    if kind is Data:
      found |= {key: Path(found[key]) for key in _PATHS if found.get(key)}
      found |= {key: str(found[key]) for key in ("image_size", "crop") if found.get(key)}  # once integers
    sections[FIELDS.get(name, name)] = kind(**found)
  return Config(**sections, imported=values.get("imported"), custom=values.get("custom", ""))


def describe(model: Model, portable: bool = False) -> dict[str, Any]:
  """What a file keeps beside the weights, JSON values.

  "step", "config", "image" (its shape), "classes", "scaling" and "conditions".

  Args:
    model: The model.
    portable: Leave out where things lie on this machine.
  """
  config = to_json(model.config)
  if portable:
    config["data"] |= dict.fromkeys(_PATHS)
  return {
    "step": model.step, "config": config, "image": list(model.shape), "classes": list(model.classes),
    "scaling": _as_json(model.scaling), "conditions": model.conditions and _as_json(model.conditions),
  }  # fmt: skip


def _as_json(found: Scaling) -> dict[str, Any]:
  """A scaling as JSON gives it back."""
  plain = lambda x: list(x) if isinstance(x, tuple) else x
  return {name: plain(value) for name, value in found._asdict().items()}
