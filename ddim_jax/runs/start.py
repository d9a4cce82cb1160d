"""How a run starts, whichever way: fresh, from weights that are there, or from its own checkpoint."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from ddim_jax import checkpoints, training
from ddim_jax.console import say
from ddim_jax.cpu.devices import lies_alone
from ddim_jax.data import Source
from ddim_jax.initialisation import on_host
from ddim_jax.models import Model, build, records
from ddim_jax.models.config import Config
from ddim_jax.packing import pack
from ddim_jax.scaling import Scaling, from_moments, unscaled

_DECIDES = {
  "model": ("channels", "multipliers", "blocks", "attention", "groups", "conditional"),
  "diffusion": ("levels", "schedule", "zero_terminal_snr", "predict"),
}
"""Fields of the configuration that decide what a model computes: a run cannot go on with others."""
_SECTIONS = ("data", "model", "diffusion", "optimisation")
_ELSEWHERE = ("data_dir", "conv", "remat")
"""Where the data lies and how the same numbers are computed."""


class Begun(NamedTuple):
  """What a run begins with.

  Attributes:
    state: Numpy arrays.
    description: What its checkpoints keep beside their arrays, see `ddim_jax.models.records.describe`.
    changes: What it goes on with otherwise than it was, in words.
    tuned: Whether its first weights were trained elsewhere.
  """

  state: training.TrainState
  description: dict[str, Any]
  changes: Sequence[str]
  tuned: bool


def begin(
  workdir: Path,
  manager: Any,
  model: Model,
  source: Source,
  optimizer: optax.GradientTransformation,
  *,
  packed: bool = True,
  origin: str | None = None,
) -> Begun:
  """Starts a run, or goes on from the newest sound checkpoint in its folder.

  Args:
    workdir: Folder of the run.
    manager: Of its checkpoints.
    model: What is trained; its configuration says how.
    source: On what.
    optimizer: By which optimiser.
    packed: See `start`.
    origin: What to call the weights that the model has, if it has any.

  Raises:
    ValueError: If the folder holds a run of another model; names what differs.
  """
  saved = checkpoints.restore_newest_sound(manager, lambda text: say(f"warning: {text}"))
  before = None if saved is None else saved.config.get("from")
  tuned = "from" in saved.config if saved is not None else model.params is not None
  description = records.describe(model) | {"classes": list(source.classes), "images": source.size}
  del description["step"]
  if tuned:
    description["from"] = before or origin or "given weights"
  changes = [] if saved is None else checked(workdir, saved.config, description)
  options = model.config.optimisation
  state = start(model, optimizer, seed=options.seed, emas=len(options.emas), packed=packed, saved=saved)
  return Begun(state, description, changes, tuned)


def for_source(model: Model, source: Source, decode: Callable[[np.ndarray], Any] | None = None) -> Model:
  """The model with what the numbers of a source mean, and what makes pictures of them.

  Vectors of which the model does not say how they are scaled are standardised.

  Raises:
    ValueError: If only one of the two has conditions, or they differ in length.
  """
  found = 0 if source.conditions is None else source.conditions.shape[1]
  if found != model.condition_size:
    numbers = lambda size: f"conditions of {size} numbers" if size else "no conditions"
    raise ValueError(
      f"the data have {numbers(found)}, the model takes {numbers(model.condition_size)}: say UNet("
      "condition_size=...), or from_network(..., conditions=...)"
    )
  conditions = model.conditions
  if source.conditions is not None and conditions == unscaled(found):
    conditions = standardised(source.conditions)
  return model.replace(scaling=source.scaling, conditions=conditions, decode=decode or model.decode)


def standardised(conditions: np.ndarray) -> Scaling:
  """The scaling that gives each number of conditions mean 0 and variance 1.

  Raises:
    ValueError: If one is the same everywhere.
  """
  try:
    return from_moments([conditions], "float32")
  except ValueError as error:
    raise ValueError(f"conditions cannot be used: {error}") from error


def start(
  model: Model,
  optimizer: optax.GradientTransformation,
  *,
  seed: int = 0,
  emas: int = 0,
  packed: bool = True,
  saved: checkpoints.Restored | None = None,
) -> training.TrainState:
  """The state that a run starts from, as numpy arrays.

  That of its checkpoint; or, before its first one, that of no update at all: with the model's parameters, if
  it has any, or with random ones.

  Args:
    model: What is trained.
    optimizer: By which optimiser.
    seed: Of random parameters.
    emas: Number of further EMAs.
    packed: Whether the state is of vectors, for an optimiser that treats all numbers alike, see
      `ddim_jax.packing`; else it is of the network's arrays.
    saved: The checkpoint to go on from.

  Raises:
    ValueError: If parameters or checkpoint do not fit the model; lists what differs.
  """
  make = lambda params: training.create_state(
    pack(params, alone=lies_alone()) if packed else params, optimizer, emas
  )
  state: training.TrainState
  if saved is not None:
    state = checkpoints.fill(jax.eval_shape(make, model.template()), saved.arrays)
  else:
    params = on_host(model.init, seed) if model.params is None else fill_in(model.template(), model.params)
    state = jax.device_get(make(params))
  return state


def fill_in(template: Any, params: Any) -> Any:
  """Parameters as a network wants them.

  Only the table of classes may be missing or of another length: then all its rows are zero, and the network
  is at first what it was without labels.

  Args:
    template: Shapes and dtypes that the network wants.
    params: The parameters.

  Raises:
    ValueError: If anything else differs; names it.
  """
  wanted, found = checkpoints.flatten(template), checkpoints.flatten(params)
  for name, value in wanted.items():
    if name == "classes.embedding" and (name not in found or found[name].shape != value.shape):
      say(f"classes     {value.shape[0]} rows, new: the weights have none for these classes")
      found[name] = np.zeros(value.shape, value.dtype)
  if "classes.embedding" not in wanted:
    found.pop("classes.embedding", None)
  return checkpoints.fill(template, found)


def _compared(saved: Config, asked: Config) -> list[tuple[str, str, Any, Any]]:
  """``(section, field, saved, asked)`` of all fields that differ."""
  old, new = build.to_json(saved), build.to_json(asked)
  fields = [
    (section, name, old[section].get(name), value)
    for section in _SECTIONS
    for name, value in new[section].items()
    if name not in _ELSEWHERE
  ]
  whole = [("", name, old.get(name), new.get(name)) for name in build.WHOLE]
  return [field for field in fields + whole if field[2] != field[3]]


def differences(saved: dict[str, Any], asked: dict[str, Any]) -> tuple[list[str], list[str]]:
  """What a run would go on with otherwise than it was.

  Args:
    saved: Description in its checkpoint, see `ddim_jax.models.records.describe`.
    asked: The description now.

  Returns:
    ``(deciding, others)``: what decides the model, with which the run cannot go on, and what does not.
  """
  compared = _compared(build.from_json(saved["config"]), build.from_json(asked["config"]))
  decides = lambda section, name: not section or name in _DECIDES.get(section, ()) or name == "emas"
  deciding = [
    f"{name}: {old!r} in the checkpoint, {new!r} asked for"
    for section, name, old, new in compared
    if decides(section, name)
  ]
  deciding += [
    f"{what}: {saved[name]} in the checkpoint, {asked[name]} now"
    for name, what in (
      ("image", "shape of the images"),
      ("classes", "classes of the data"),
      ("scaling", "what the numbers of the data mean"),
      ("conditions", "what the conditions mean"),
    )
    if saved.get(name, asked[name]) != asked[name]
  ]
  others = [
    f"{name} {old!r} before, {new!r} from now on"
    for section, name, old, new in compared
    if not decides(section, name)
  ]
  if saved.get("images", asked["images"]) != asked["images"]:
    others.append(f"images of the data {saved['images']:,} before, {asked['images']:,} from now on")
  return deciding, others


def checked(workdir: Any, saved: dict[str, Any], asked: dict[str, Any]) -> Sequence[str]:
  """What a run goes on with otherwise than it was.

  Raises:
    ValueError: If that decides the model; names what differs.
  """
  deciding, others = differences(saved, asked)
  if deciding:
    raise ValueError(f"{workdir} holds another run: {'; '.join(deciding)}")
  return others
