"""What can be asked of the page: functions of a model and settings that yield what to show, again and again.

Each yields after every step, so that whoever asked sees how far it is, and whoever runs it can stop.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

import ddim_jax
from ddim_jax import timesteps
from ddim_jax.app import settings as chosen
from ddim_jax.app.settings import Settings
from ddim_jax.app.walking import Painted, as_data, climb, first_noise, walk
from ddim_jax.models import Model, tables

NUM = 8
"""Images drawn at a time."""


class Row(NamedTuple):
  """Images beside each other.

  Attributes:
    title: What they are.
    images: ``u8[N, H, W, C]``.
    captions: One for each image, or none.
  """

  title: str
  images: np.ndarray
  captions: tuple[str, ...] = ()


class Shown(NamedTuple):
  """What to show for now.

  Attributes:
    done: Steps made.
    total: Steps in all.
    rows: From top to bottom.
  """

  done: int
  total: int
  rows: tuple[Row, ...]


def names(model: Model, numbers: np.ndarray | None) -> tuple[str, ...]:
  """Names of classes; none for a model without classes."""
  return () if numbers is None else tuple(model.classes[number] for number in numbers)


def draw(model: Model, settings: Settings, num: int = NUM) -> Iterator[Shown]:
  """Images 0 to ``num - 1`` of the seed, and below them what the network predicts they become."""
  settings = chosen.checked(settings, model)
  (keys, x), ts = first_noise(model, settings.seed, num), chosen.levels(settings, model)
  label = chosen.labels(settings, model, num)
  moments = walk(
    model, keys, x, ts, solver=settings.solver, eta=settings.eta, label=label,
    guidance=chosen.guidance(settings),
  )  # fmt: skip
  captions = names(model, label)
  for moment in moments:
    title = "Finished" if moment.level == 0 else f"At level {moment.level:g}"
    expected = Row("What the network expected of it", moment.expected, captions)
    yield Shown(moment.done, len(ts) - 1, (Row(title, moment.pictures, captions), expected))


def between(model: Model, settings: Settings, other: int, weight: float, num: int = NUM) -> Iterator[Shown]:
  """From image 0 of the seed to image 0 of another, along the great circle between their noises.

  Args:
    model: The model.
    settings: How to draw; all images are of the class of image 0.
    other: The other seed.
    weight: In [0, 1], of the image that is shown large.
    num: That one and ``num - 1`` at even distances.

  Raises:
    ValueError: On a setting that does not go with the model, or a weight out of range.
  """
  settings = chosen.checked(settings, model)
  if not 0 <= weight <= 1:
    raise ValueError(f"weight must be in [0, 1], got {weight}")
  chosen.checked(dataclasses.replace(settings, seed=other), model)
  ends = [first_noise(model, seed, 1) for seed in (settings.seed, other)]
  weights = np.append(np.linspace(0, 1, num - 1), weight).astype(np.float32)
  a, b = (jnp.repeat(noise, num, axis=0) for _, noise in ends)
  label, ts = chosen.labels(settings, model, 1), chosen.levels(settings, model)
  moments = walk(
    model, jnp.repeat(ends[0][0], num), ddim_jax.slerp(a, b, weights), ts, solver=settings.solver,
    eta=settings.eta, label=None if label is None else np.repeat(label, num),
    guidance=chosen.guidance(settings),
  )  # fmt: skip
  strip = tuple(f"{w:.2g}" for w in weights[:-1])
  for moment in moments:
    pictures = moment.pictures
    large = Row(f"Weight {weight:.2f}", pictures[-1:])
    rows = (large, Row(f"From seed {settings.seed} to seed {other}", pictures[:-1], strip))
    yield Shown(moment.done, len(ts) - 1, rows)


def edit(
  model: Model,
  settings: Settings,
  picture: np.ndarray,
  label: str,
  strength: float,
  refine: int,
  num: int = NUM,
) -> Iterator[Shown]:
  """A picture is inverted up to a level, led back as it is, and drawn again from there by the settings.

  Args:
    model: The model.
    settings: How to draw again.
    picture: ``u8[H, W, C]``.
    label: Class of the picture, by name, or `settings.EACH` for class 0.
    strength: Share of the steps, in (0, 1].
    refine: Largest number of fixed-point iterations of a step of the inversion.
    num: How many to draw.
  """
  settings = chosen.checked(settings, model)
  ts = timesteps.cut(chosen.levels(settings, model), strength)
  own = chosen.labels(dataclasses.replace(settings, label=label), model, 1)
  target, keys = chosen.labels(settings, model, num), first_noise(model, settings.seed, num)[0]
  steps, original = len(ts) - 1, Row("Your picture", picture[None])
  total = 3 * steps
  code = x = as_data(model, picture)[None]
  for moment in climb(model, x, ts, label=own, refine=refine):
    code = moment.x
    yield Shown(
      moment.done, total, (original, Row(f"Inverted up to level {moment.level:g}", moment.pictures))
    )
  rows = [original, Row(f"Its noise at level {ts[0]:g}", model.pictures(code))]
  for moment in walk(model, keys[:1], code, ts, label=own, clip=False):
    back = Row("Led back", moment.pictures)
    yield Shown(steps + moment.done, total, (*rows, back))
  rows.append(back)
  moments = walk(
    model, keys, np.repeat(code, num, axis=0), ts, solver=settings.solver, eta=settings.eta, label=target,
    guidance=chosen.guidance(settings),
  )  # fmt: skip
  for moment in moments:
    again = Row("Drawn again", moment.pictures, names(model, target))
    yield Shown(2 * steps + moment.done, total, (*rows, again))


def paint(
  model: Model, settings: Settings, picture: np.ndarray, kept: np.ndarray, repeats: int, num: int = NUM
) -> Iterator[Shown]:
  """A part of a picture is painted anew, by RePaint.

  Args:
    model: The model.
    settings: How to draw.
    picture: ``u8[H, W, C]``.
    kept: True where the picture stays, ``bool[H, W, 1]``.
    repeats: How often each stretch of steps is walked; more lets the new part fit the old better.
    num: How many to draw.

  Raises:
    ValueError: On a setting that does not go with the model, or if nothing is to be painted.
  """
  settings = chosen.checked(settings, model)
  if kept.all():
    raise ValueError("mask must have a painted part: draw over what is to be painted anew")
  levels = chosen.levels(settings, model)
  ts = timesteps.repaint(levels, max(1, min(5, len(levels) // 4)), repeats)
  (keys, x), label = first_noise(model, settings.seed, num), chosen.labels(settings, model, num)
  moments = walk(
    model, keys, x, ts, solver=settings.solver, eta=settings.eta, label=label,
    guidance=chosen.guidance(settings), painted=Painted(kept, as_data(model, picture)),
  )  # fmt: skip
  given = Row("What is kept", np.where(kept, picture, np.uint8(128))[None])
  for moment in moments:
    result = Row("Painted anew", moment.pictures, names(model, label))
    yield Shown(moment.done, len(ts) - 1, (given, result))


def solvers(
  model: Model, settings: Settings, solvers: Sequence[tables.SolverName], evaluations: int, num: int = NUM
) -> Iterator[Shown]:
  """The same noise, by several solvers, with the same number of evaluations of the network for each.

  Raises:
    ValueError: On a setting that does not go with the model, or if no solver is named, or one needs more.
  """
  if not solvers:
    raise ValueError("solvers must name at least one")
  asked = [
    dataclasses.replace(settings, solver=name, steps=tables.steps_for(name, evaluations)) for name in solvers
  ]
  asked = [chosen.checked(one, model) for one in asked]
  total, done = sum(len(chosen.levels(one, model)) - 1 for one in asked), 0
  rows: list[Row] = []
  for one in asked:
    for shown in draw(model, one, num):
      title = f"{one.solver}, {shown.total} steps, {evaluations} evaluations"
      row = Row(title, shown.rows[0].images, shown.rows[0].captions)
      yield Shown(done + shown.done, total, (*rows, row))
    done += shown.total
    rows.append(row)
