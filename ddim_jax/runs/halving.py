"""Distillation as a run: teacher of 32 steps -> students of 16, 8 and 4, each the teacher of the next."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ddim_jax import data, distillation, training
from ddim_jax.denoisers import Denoiser
from ddim_jax.models import Model, build, tables
from ddim_jax.parameterisation import EPS, V
from ddim_jax.runs import objective
from ddim_jax.runs.loop import fit
from ddim_jax.scaling import unscaled

SPACING: Literal["trailing"] = "trailing"
"""Levels of students: the first is T, where there is only noise, however few they are; halves are nested."""


class Teaching(NamedTuple):
  """What a student learns.

  Attributes:
    losses: See `ddim_jax.distillation.distillation_losses`.
    levels: ``(levels of the teacher, teacher's steps in one of the student's) -> levels to learn at``.
  """

  losses: Callable[..., Callable[..., jax.Array]]
  levels: Callable[[np.ndarray, int], training.Levels]


PROGRESSIVE = Teaching(distillation.distillation_losses, distillation.student_levels)
CONSISTENCY = Teaching(
  distillation.consistency_losses, lambda ts, every: distillation.student_levels(ts, every=1)
)


def stages(start: int, to: int, turn: bool, by: int = 2) -> list[tuple[int, int]]:
  """``(steps of the student, teacher's steps in one of them)``, in order.

  Args:
    start: Steps of the first teacher.
    to: Steps of the last student.
    turn: Whether to learn what the teacher predicts first, with as many steps.
    by: Steps of each teacher in one of its student's, at least 2.

  Raises:
    ValueError: If ``start`` divided by ``by`` again and again is never ``to``.
  """
  if by < 2:
    raise ValueError(f"by must be at least 2, got {by}")
  students, left = [], start
  while to > 0 and left > to and left % by == 0:
    left //= by
    students.append((left, by))
  if not students or left != to:
    several = f"{by}, {by**2}, {by**3}"
    raise ValueError(f"start must be to times {several}, ..., got start {start} and to {to}")
  return [(start, 1)] * turn + students


def as_student(teacher: Model, steps: int, by: str) -> Model:
  """The teacher as the model that is to become a student of so many steps: of v if it was of eps."""
  turn = teacher.parameterisation is EPS
  config = build.to_predict_v(teacher.config) if turn else teacher.config
  diffusion = dataclasses.replace(config.diffusion, spacing=SPACING, solver="ddim")
  return teacher.replace(
    parameterisation=V if turn else teacher.parameterisation,
    spacing=tables.spacing(SPACING, teacher.schedule),
    config=dataclasses.replace(config, diffusion=diffusion, distilled=steps, distilled_by=by),
    solver="ddim",
  )


def check_teacher(teacher: Model) -> None:
  """Raises ValueError unless a model can be distilled."""
  if teacher.params is None:
    raise ValueError("teacher has no parameters: train it with ddim_jax.runs.fit")
  if teacher.predicts_variance:
    raise ValueError(
      "teacher must not predict variances: students take steps of DDIM, which have none and would leave them"
      " wrong; for few steps draw with the solver unipc2"
    )


def distil(
  workdir: str | Path,
  teacher: Model,
  images: data.Source | np.ndarray,
  *,
  to: int = 4,
  start: int = 32,
  by: int = 2,
  teaching: Teaching = PROGRESSIVE,
  updates: int = 5000,
  turn_updates: int | None = None,
  learning_rate: float = 2e-4,
  ema: float = 0.999,
  label_dropout: float = 0.1,
  max_minutes: float | None = None,
  **options: Any,
) -> Model:
  """Distillation: students of half the steps each, until one has ``to``; or goes on with that.

  A teacher of eps is first turned into a student of v that takes as many steps, with whose weights the next
  begins: its teacher is the one of eps all the same, so what the turn got wrong is learned away. Every later
  student begins with the weights of its teacher. Each has a run of `fit` in a folder of its own,
  ``workdir/16_steps`` and so on: the same call goes on where it stopped, and each can be loaded from there.

  Args:
    workdir: Folder of all these runs; created.
    teacher: Any model with parameters. Its weights are constants of the compiled update.
    images: What it was trained on, see `fit`.
    to: Steps of the last student.
    start: Steps of the teacher: ``to`` times ``by`` once or several times; at most T.
    by: Teacher's steps in one of the student's: 2 halves them; 4 needs half as many students.
    teaching: `PROGRESSIVE`, or `CONSISTENCY`, which learns many steps at once at the price of two: give as
      ``by`` all of ``start`` divided by ``to``.
    updates: Of each student.
    turn_updates: Of the turn from eps, if not as many.
    learning_rate: At each student's first update; falls linearly to 0 at its last.
    ema: Decay of the EMA, which begins with the teacher's weights: short against ``updates``.
    label_dropout: Fraction of labels hidden from both, where the teacher has a label for no class.
    max_minutes: Stop and save after this time, over all students.
    **options: Further arguments of `fit`, such as labels, batch_size, flip, seed, save_every.

  Returns:
    The last student that was trained, which draws with its own number of steps: more than ``to`` if the run
    was stopped before, and ``model.step`` is less than ``updates`` if it was stopped in this one.

  Raises:
    ValueError: If an argument is out of its range, or the folder holds another run; names it.
  """
  turn_updates = updates if turn_updates is None else turn_updates
  for name, count in (("updates", updates), ("turn_updates", turn_updates)):
    if count < 1:
      raise ValueError(f"{name} must be positive, got {count}")
  check_teacher(teacher)
  planned = stages(start, to, teacher.parameterisation is EPS, by)
  if start > teacher.schedule.T:
    raise ValueError(f"start must be at most the {teacher.schedule.T} levels of the teacher, got {start}")
  ends = None if max_minutes is None else time.monotonic() + 60 * max_minutes
  student = teacher
  for steps, every in planned:
    left = None if ends is None else max((ends - time.monotonic()) / 60, 1e-6)
    count, taught = (turn_updates, PROGRESSIVE) if every == 1 else (updates, teaching)
    begun = as_student(student, steps, f"{taught.losses.__name__}, every {every}")
    student = fit(
      Path(workdir).expanduser() / f"{steps}_steps", begun, images, steps=count,
      learning_rate=optax.linear_schedule(learning_rate, 0.0, count), ema=ema, label_dropout=label_dropout,
      sample_every=0, max_minutes=left,
      minimise=_towards(teacher, steps * every, every, taught, label_dropout), **options,
    )  # fmt: skip
    if student.step < count:
      break
    teacher = teacher if every == 1 else student
  return student


def _towards(
  teacher: Model, steps: int, every: int, teaching: Teaching, label_dropout: float
) -> Callable[[Model], tuple[Callable[..., jax.Array], training.Levels]]:
  """``student -> (losses, levels)``, see `ddim_jax.distillation`; both are without dropout."""
  ts = tables.spacing(SPACING, teacher.schedule)(steps)

  def denoiser(given: Any) -> Denoiser:
    # Behind a barrier, XLA does not spend minutes on folding constants.
    params = jax.lax.optimization_barrier(jax.tree.map(jnp.asarray, teacher.params))
    labels, conditions = given
    # They are standardised, which is how they are given to the network.
    plain = None if teacher.conditions is None else unscaled(teacher.condition_size)
    return teacher.replace(params=params, conditions=plain).denoiser(label=labels, condition=conditions)

  def minimise(student: Model) -> tuple[Callable[..., jax.Array], training.Levels]:
    def network(params: Any, x_t: jax.Array, t: Any, given: Any, keys: Any) -> jax.Array:
      labels, conditions = given
      return student.apply(params, x_t, t, labels, conditions=conditions)

    losses = teaching.losses(
      network, denoiser, student.schedule, ts, every=every, parameterisation=student.parameterisation
    )

    def hiding(params: Any, keys: jax.Array, x0: jax.Array, labels: Any, t: jax.Array) -> jax.Array:
      label_keys, keys = training.split_each(keys)
      return losses(params, keys, x0, objective.hide(labels, label_keys, student, label_dropout), t)

    return hiding, teaching.levels(ts, every)

  return minimise
