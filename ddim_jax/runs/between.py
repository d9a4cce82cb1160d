"""The loop of a run: update after update; between them checkpoints, evaluations and grids."""

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ddim_jax import checkpoints, plots
from ddim_jax.console import say
from ddim_jax.data import Source
from ddim_jax.models import Model, drawing
from ddim_jax.models.classes import as_columns
from ddim_jax.packing import unpack
from ddim_jax.runs import evaluation, logs
from ddim_jax.runs.hosts import StopRequest
from ddim_jax.runs.waiting import waiting
from ddim_jax.training import TrainState

_LAG = 2
"""Updates between one and reading its metrics, so that reading never makes the device wait."""
_BY_LEVEL_EVERY = 10
"""Updates between those that record their loss by level."""
_GRID = 64

LogFunction = Callable[[int, dict[str, float]], None]
"""``(step, values)``, see ``log`` of `ddim_jax.runs.fit`."""
PictureFunction = Callable[[int, np.ndarray], None]
"""``(step, u8[H, W, C])``, see ``log_samples`` of `ddim_jax.runs.fit`."""


class Habits(NamedTuple):
  """What happens between updates.

  Attributes:
    save: ``(step, state, metric or None)``: starts saving a checkpoint.
    save_every: After every so many updates; and after the last.
    evaluate: ``(ema, emas) -> values``, or None.
    eval_every: The same.
    draw: ``(step, ema)``: draws a grid; or None.
    sample_every: The same.
    compiled: Called once after the first update.
    shown: Whether to say what is waited for.
  """

  save: Callable[[int, TrainState, float | None], None]
  save_every: int
  evaluate: Callable[[Any, Any], dict[str, float]] | None
  eval_every: int
  draw: Callable[[int, Any], None] | None
  sample_every: int
  compiled: Callable[[], Any] | None
  shown: bool


def train(
  update: Callable[..., Any],
  state: TrainState,
  key: jax.Array,
  batches: Iterable[tuple[np.ndarray, np.ndarray]],
  steps: int,
  habits: Habits,
  reader: "Reader",
  stop: StopRequest,
) -> tuple[TrainState, int, int]:
  """Updates until ``steps``, or until told to stop.

  Args:
    update: See `ddim_jax.runs.update.pmapped_update`.
    state: On the devices; donated.
    key: The run's key.
    batches: Those of the updates that are left, see `ddim_jax.runs.update.local_batch`.
    steps: Updates in the end.
    habits: What happens between them.
    reader: What reads their metrics.
    stop: What may have been asked for; all processes stop after the same update.

  Returns:
    ``(state, updates behind it, urgency)``, see `StopRequest`.
  """
  step = saved = int(state.step)
  first, urgency, unread = step + 1, 0, None
  try:
    for number, (pixels, numbers) in enumerate(batches, first):
      flags = np.full(jax.local_device_count(), stop.urgency(), np.int32)
      state, unread = update(state, key, pixels, numbers, flags)
      step = number
      if step == first and habits.compiled is not None:
        jax.block_until_ready(unread)
        habits.compiled()
      last, judged = step == steps, None
      drawing = habits.draw is not None and (last or step % habits.sample_every == 0)
      if habits.evaluate is not None and (last or step % habits.eval_every == 0):
        with waiting("drawing images to evaluate", habits.shown):
          judged = habits.evaluate(*unpack(jax.device_get((state.ema, state.emas))))
      reader.add(step, unread | (judged or {}))
      unread = None
      due = last or judged is not None or step % habits.save_every == 0
      urgency = reader.read(0 if due or drawing else _LAG)
      if due or urgency:
        urgency = max(urgency, reader.read(0))
        reader.flush()
        habits.save(step, state, None if judged is None else judged["frechet"])
        saved = step
      if habits.draw is not None and drawing:
        with waiting("drawing samples", habits.shown):
          habits.draw(step, unpack(jax.device_get(state.ema)))
      if urgency:
        break
  except Exception as error:
    sound = not isinstance(error, (FloatingPointError, checkpoints.SaveError))
    if sound and step > saved and jax.process_count() == 1:  # several processes save together, or not at all
      _rescue(step, state, unread, habits, reader)
    raise
  return state, step, urgency


def _rescue(step: int, state: TrainState, unread: Any, habits: Habits, reader: "Reader") -> None:
  """Saves what was not saved yet, before an error that is none of the training's ends the run."""
  with contextlib.suppress(Exception):  # the error on its way out says more
    if unread is not None:
      reader.add(step, unread)
    reader.drain()
    habits.save(step, state, None)
    say(f"saved at step {step:,}, because of the error below; the same command goes on from there")


class Reader:
  """Metrics of updates that are still being computed, read a little later."""

  def __init__(self, book: logs.Log, log: LogFunction | None, max_skipped: int, T: int, manager: Any) -> None:
    """Takes what the values are for: a log, a function, and for a message the run's checkpoints."""
    self._pending: deque[tuple[int, dict[str, Any]]] = deque()
    self._book, self._log, self._max_skipped, self._T, self._manager = book, log, max_skipped, T, manager

  def add(self, step: int, metrics: dict[str, Any]) -> None:
    """Takes the metrics of an update, perhaps before they are computed."""
    self._pending.append((step, metrics))

  def read(self, limit: int) -> int:
    """Logs metrics until at most ``limit`` updates are unread; returns the highest urgency seen.

    Raises:
      FloatingPointError: If more updates than are allowed were left out.
    """
    urgency = 0
    while len(self._pending) > limit:
      step, metrics = self._pending.popleft()
      arrays = {name: np.asarray(value) for name, value in metrics.items()}
      by_level = evaluation.by_level(arrays, self._T) if step % _BY_LEVEL_EVERY == 0 else {}
      values = {name: value.item() for name, value in arrays.items() if value.ndim == 0} | by_level
      urgency = max(urgency, int(values.pop("stop")))
      timed = self._book.step(step, values)
      if self._log is not None:
        self._log(step, timed)
      if values["skipped"] > self._max_skipped:
        self._manager.wait_until_finished()
        newest = self._manager.latest_step()
        raise FloatingPointError(
          f"loss or gradient was not finite at step {step} (loss {values['loss']}); that update was left out."
          f" Last checkpoint: {'none' if newest is None else f'step {newest}'}. Lower the learning rate, or"
          " allow some such updates with max_skipped."
        )
    return urgency

  def flush(self) -> None:
    """Puts everything read so far on the disk."""
    self._book.flush()

  def drain(self) -> None:
    """Reads all that is left, for the files alone, and puts it on the disk if that can be.

    Raises:
      FloatingPointError: As `read`.
    """
    self._log = None
    while self._pending:
      with contextlib.suppress(OSError):
        self.read(0)
    with contextlib.suppress(OSError):
      self.flush()


def grids(
  model: Model, source: Source, seed: int, workdir: Path, shown_to: Sequence[PictureFunction]
) -> Callable[[int, Any], None]:
  """``(step, ema)``: draws the first images of a seed, with the model's own solver and number of steps.

  A column for each class, if there are not too many. The picture lies in the run's folder, with how it was
  made, and is given to all of ``shown_to``.
  """
  ts, given = model.levels(model.own_steps), evaluation.given(model, source, _GRID)
  size, draw = drawing.numbered_pictures(model, ts, seed=seed, at_once=_GRID, **given)
  made = {"model": str(workdir), "levels": ts.tolist(), "eta": 0.0, "seed": seed}
  names = () if given else as_columns(model.classes, _GRID)

  def grid(step: int, ema: Any) -> None:
    try:
      picture = plots.labelled(draw(np.arange(size), params=ema)[:_GRID], columns=names)
    except FloatingPointError as error:
      say(f"warning: no samples of step {step:,}: {error}")
      return
    plots.save_png(workdir / "samples" / f"step_{step:08d}.png", picture, made | {"step": step})
    for show in shown_to:
      show(step, picture)

  return grid


def checkpointer(
  manager: Any, description: dict[str, Any]
) -> Callable[[int, TrainState, float | None], None]:
  """``(step, state, metric or None)``: starts saving a checkpoint of that description."""
  return lambda step, state, metric: checkpoints.save(manager, step, state, description, metric)
