"""What a file keeps beside weights, and the model that it stands for."""

from typing import Any

from ddim_jax import scaling as scalings
from ddim_jax.models import build
from ddim_jax.models.model import Model
from ddim_jax.scaling import BYTES, Scaling


def describe(model: Model, portable: bool = False) -> dict[str, Any]:
  """What a file keeps beside the weights, JSON values.

  "step", "config", "image" (its shape), "classes", "scaling" and "conditions".

  Args:
    model: The model.
    portable: Leave out where things lie on this machine.
  """
  config = build.to_json(model.config)
  if portable:
    config["data"] |= dict.fromkeys(build.PATHS)
  return {
    "step": model.step, "config": config, "image": list(model.shape), "classes": list(model.classes),
    "scaling": _as_json(model.scaling), "conditions": model.conditions and _as_json(model.conditions),
  }  # fmt: skip


def _as_json(found: Scaling) -> dict[str, Any]:
  """A scaling as JSON gives it back."""
  plain = lambda x: list(x) if isinstance(x, tuple) else x
  return {name: plain(value) for name, value in found._asdict().items()}


def from_description(description: dict[str, Any], params: Any, like: Model | None = None) -> Model:
  """The inverse of `describe`.

  Args:
    description: Its result.
    params: The weights beside it.
    like: A model with the same network, where that is not this project's.

  Raises:
    ValueError: If the network is not this project's and ``like`` is not given.
  """
  config, step = build.from_json(description["config"]), int(description["step"])
  scaled: dict[str, Any] = {
    "scaling": scalings.from_json(description.get("scaling")) or BYTES,
    "conditions": scalings.from_json(description.get("conditions")),
  }
  if like is not None:
    return like.replace(params=params, step=step, config=config, **scaled)
  if config.custom:
    raise ValueError(
      f"the network, {config.custom}, is not this project's: give like, a Model with that network from"
      " ddim_jax.models.from_network"
    )
  shape, classes = tuple(description["image"]), tuple(description["classes"])
  return build.from_config(config, shape, classes, params, step, **scaled)
