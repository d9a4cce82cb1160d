"""What a visitor has chosen: checked here, and kept in the address of the page and in its pictures."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlencode

import numpy as np

from ddim_jax import ranges
from ddim_jax.models import Model, denoising, drawing, tables
from ddim_jax.ranges import Range, Seed, Unit

MOST_STEPS = 250
EACH = "each of its own class"
"""What is chosen in place of a class where image i is of class i modulo their number."""
OWN = "the model's own"
"""What is chosen in place of a spacing."""
_KINDS: dict[str, type] = {"seed": int, "steps": int, "eta": float, "guidance": float}
_SHOWN = 40


@dataclass(frozen=True)
class Settings:
  """How images are drawn; the arguments of `Model.sample`.

  Attributes:
    seed: Image i of a seed is always the same image.
    steps: Number of steps S.
    eta: Noise of DDIM.
    guidance: Weight of classifier-free guidance; 1 is none.
    label: Name of a class, or `EACH`.
    solver: A key of `ddim_jax.models.SOLVERS`.
    spacing: Name of a spacing, or `OWN`.
  """

  seed: Seed = 0
  steps: Annotated[int, Range(1, MOST_STEPS)] = 10
  eta: Unit = 0.0
  guidance: Annotated[float, Range(0, 20)] = 1.0
  label: str = EACH
  solver: tables.SolverName = "ddim"
  spacing: str = OWN


def checked(settings: Settings, model: Model) -> Settings:
  """The settings, if the model can draw by them; with another solver than ddim, eta is 0.

  Raises:
    ValueError: If not; says why.
  """
  ranges.check_all(settings)
  levels(settings, model)
  labels(settings, model, 1)
  if model.null_label is None and settings.guidance != 1:
    raise ValueError(
      f"guidance needs a model that was also trained without classes; only 1 goes with this one,"
      f" got {settings.guidance:g}"
    )
  return settings if settings.solver == "ddim" else dataclasses.replace(settings, eta=0.0)


def levels(settings: Settings, model: Model) -> np.ndarray:
  """The levels to visit, ``[S+1]``."""
  return model.levels(settings.steps, None if settings.spacing == OWN else settings.spacing)


def labels(settings: Settings, model: Model, num: int) -> np.ndarray | None:
  """Classes of images 0 to ``num - 1``, ``i32[num]``; None for a model without classes.

  Raises:
    ValueError: If the model has no such class.
  """
  if not model.classes:
    if settings.label != EACH:
      raise ValueError(f"label must be {EACH!r}: this model has no classes, got {settings.label!r}")
    return None
  if settings.label == EACH:
    each: np.ndarray = drawing.in_turn(model, np.arange(num, dtype=np.int32))
    return each
  return np.full(num, model.labels(settings.label), np.int32)


def guidance(settings: Settings) -> float | None:
  """The weight of guidance; None where it has no effect."""
  return settings.guidance if denoising.is_guided(settings.guidance) else None


def first(model: Model) -> Settings:
  """What a visitor begins with: few steps, or as many as the model was distilled for."""
  return Settings(steps=model.config.distilled or min(Settings.steps, model.schedule.T))


def to_query(settings: Settings, model: Model) -> str:
  """What differs from the beginning, as it stands behind the ``?`` of an address."""
  begun, values = first(model), dataclasses.asdict(settings)
  return urlencode({name: value for name, value in values.items() if value != getattr(begun, name)})


def from_query(query: Mapping[str, str], model: Model) -> Settings:
  """The settings of an address; other names in it are passed over.

  Raises:
    ValueError: If a value is none, or the model cannot draw by it; names it.
  """
  given: dict[str, Any] = {}
  for field in dataclasses.fields(Settings):
    if field.name in query:
      text, kind = query[field.name], _KINDS.get(field.name, str)
      try:
        given[field.name] = kind(text)
      except ValueError as error:
        number = "an integer" if kind is int else "a number"
        raise ValueError(f"{field.name} must be {number}, got {text[:_SHOWN]!r}") from error
  return checked(dataclasses.replace(first(model), **given), model)
