"""``ddim distil TEACHER``: a student that needs few steps."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from ddim_jax.commands import options
from ddim_jax.console import say
from ddim_jax.models import datasets
from ddim_jax.ranges import Several
from ddim_jax.runs import Interrupted
from ddim_jax.runs.halving import CONSISTENCY, PROGRESSIVE, check_teacher, distil

_TEACHINGS = {"progressive": PROGRESSIVE, "consistency": CONSISTENCY}


def distil_model(
  teacher: options.Where,
  *,
  workdir: Path = Path("runs/distil"),
  to: int = 4,
  start: int = 32,
  by: Several = 2,
  method: Literal["progressive", "consistency"] = "progressive",
  updates: int = 5000,
  turn_updates: int | None = None,
  batch_size: int = 64,
  learning_rate: float = 2e-4,
  ema: float = 0.999,
  seed: int = 0,
  max_minutes: float | None = None,
  save_every: int = 500,
  data: str | None = None,
  image_size: options.Size = None,
  flags: options.Flags = None,
) -> int:
  """Trains students of half the steps, then of half of that, until one needs only --to; or goes on with that.

  ddim distil fashion_mnist --to 4 --workdir runs/distil, then ddim sample runs/distil/4_steps

  Args:
    teacher: The model.
    workdir: Folder of the runs, one for each student, such as 16_steps. Runs that are already there go on.
    to: Steps of the last student.
    start: Steps of the first teacher: --to multiplied by --by once or several times, such as 4 * 2 * 2 * 2.
    by: Steps of each teacher that its student takes in one: 2 halves them.
    method: progressive: a student learns where the teacher's steps lead. consistency: it learns one step of
      the teacher, and the rest from itself, which costs the same for any --by: give --start / --to.
    updates: Updates of each student.
    turn_updates: Updates that turn a teacher of eps into a first student of v, if not as many.
    batch_size: Size of the global batch.
    learning_rate: At each student's first update; falls to 0 at its last.
    ema: Decay of the EMA of the parameters, in [0, 1).
    seed: Decides noise and order.
    max_minutes: Stop and save after this time; the same command goes on from there.
    save_every: Updates between checkpoints.
    data: Data set to distil on; by default the one that the teacher was trained on.
    image_size: See `options.Size`.
    flags: See `options.Flags`.
  """
  found = options.model(teacher, data=data, size=image_size, flags=flags)
  check_teacher(found)
  source = datasets.open_data(found.config.data, scaling=found.scaling)
  try:
    student = distil(
      workdir, found, source, to=to, start=start, by=by, teaching=_TEACHINGS[method], updates=updates,
      turn_updates=turn_updates, batch_size=batch_size, learning_rate=learning_rate, ema=ema, seed=seed,
      max_minutes=max_minutes, save_every=save_every, flip=found.config.data.flip, record=found.config.data,
      origin=str(teacher),
    )  # fmt: skip
  except Interrupted as error:
    say(f"{error}; the same command goes on from there")
    return 130
  if student.own_steps != to or student.step < updates:
    say(f"stopped and saved in {workdir}; the same command goes on from there")
  else:
    say(f"done. Next: ddim sample {workdir / f'{to}_steps'}")
  return 0


def main(argv: Sequence[str]) -> None:
  """Parses, trains and exits."""
  options.run(distil_model, argv, "ddim distil")
