"""Sampling one step at a time, so that a page can show each, say how far it is, and stop.

One program for each solver is compiled, for one step: the number of steps, their levels, eta, guidance, seed
and classes are its arguments. The images are those of `Model.sample`, to rounding.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

import ddim_jax
from ddim_jax.models import Model, drawing, tables
from ddim_jax.seeds import key_of, step_noise


class Moment(NamedTuple):
  """Where a batch is after a step.

  Attributes:
    done: Number of steps made.
    level: Level reached.
    x: Samples at that level, ``f32[B, H, W, C]``, numpy.
    x0: What the step took for the finished images, of the same shape.
    show: Samples as pictures, see `Model.pictures`.
  """

  done: int
  level: float
  x: np.ndarray
  x0: np.ndarray
  show: Callable[[np.ndarray], np.ndarray]

  @property
  def pictures(self) -> np.ndarray:
    """The samples as pixels, ``u8[B, H, W, C]``."""
    return self.show(self.x)

  @property
  def expected(self) -> np.ndarray:
    """The predictions as pixels, ``u8[B, H, W, C]``."""
    return self.show(self.x0)


class Painted(NamedTuple):
  """What of an image is given, for inpainting.

  Attributes:
    kept: True where it stays, ``bool[H, W, 1]``.
    known: The image in data units, ``f32[H, W, C]``.
  """

  kept: np.ndarray
  known: np.ndarray


def first_noise(model: Model, seed: int, num: int) -> tuple[jax.Array, jax.Array]:
  """Keys ``[num]`` and noise ``f32[num, H, W, C]`` of images 0 to ``num - 1`` of a seed."""
  return drawing.starts(model, key_of(seed), np.arange(num))


def as_data(model: Model, picture: np.ndarray) -> np.ndarray:
  """A picture in data units, ``f32[H, W, C]``: what `Model.pictures` shows as ``u8[H, W, C]``, to rounding.

  Raises:
    ValueError: If the model's samples are no pictures themselves.
  """
  if model.decode is not None:
    raise ValueError("a picture cannot be edited by this model: its samples become pictures by its decode")
  return np.asarray(model.scaling.from_bytes(picture))


def walk(
  model: Model,
  keys: jax.Array,
  x: jax.Array | np.ndarray,
  ts: np.ndarray,
  *,
  solver: str = "ddim",
  eta: float = 0.0,
  label: np.ndarray | None = None,
  guidance: float | None = None,
  painted: Painted | None = None,
  clip: bool = True,
) -> Iterator[Moment]:
  """Walks from ``x`` at level ``ts[0]`` along the levels, and yields after each step.

  Args:
    model: The model.
    keys: One for each image, see `first_noise`.
    x: ``f32[B, H, W, C]``.
    ts: Levels, ``[S+1]``; they may rise only with ``painted``.
    solver: A key of `ddim_jax.models.SOLVERS`.
    eta: Noise of DDIM, in [0, 1].
    label: Classes, ``i32[B]``.
    guidance: Weight of guidance; None is none.
    painted: What must come out where.
    clip: Restrict predictions of x0.

  Raises:
    ValueError: If the model cannot draw so.
    FloatingPointError: If a sample is NaN or infinite.
  """
  noise = tables.checked_eta(eta, solver)
  sharing = drawing.by_example(len(x))
  program, placed = _step(model, solver, guidance is not None, clip, sharing), drawing.placed(model, sharing)
  x, keys, label = jax.device_put((np.asarray(x), keys, label), sharing)
  begin = _rule(solver, noise, painted).init
  carry = jax.jit(begin, out_shardings=drawing.everywhere(sharing))(x)
  weight = None if guidance is None else np.float32(guidance)
  for i, (t, s) in enumerate(itertools.pairwise(ts)):
    x, carry, x0 = program(placed, keys, carry, x, t, s, np.int32(i + 1), noise, weight, label, painted)
    here = np.asarray(x)
    if not np.isfinite(here).all():
      raise FloatingPointError("images are not finite: the weights are not, or guidance is too strong")
    yield Moment(i + 1, float(s), here, np.asarray(x0), model.pictures)


def _rule(solver: str, eta: Any, painted: Any) -> ddim_jax.Solver:
  """The solver; one that may go up where a part is painted anew."""
  rule = tables.as_solver(solver, eta)
  return rule if painted is None else ddim_jax.repaint(rule)


def _step(model: Model, solver: str, guided: bool, clip: bool, sharing: jax.sharding.NamedSharding) -> Any:
  """The compiled step of a solver, kept with the model."""

  def step(
    model: Model, keys: Any, carry: Any, x: Any, t: Any, s: Any, number: Any, eta: Any, guidance: Any,
    label: Any, painted: Any,
  ) -> Any:  # fmt: skip
    rule = _rule(solver, eta, painted)
    denoise = model.denoiser(label=label, guidance=guidance if guided else 1.0, clip=clip)
    if painted is not None:
      denoise = ddim_jax.inpaint(denoise, painted.kept[None], painted.known[None], model.schedule)
    noise = step_noise(keys, number, rule.draws, x.shape, x.dtype)
    x, carry, prediction = rule.step(denoise, model.schedule, carry, x, t, s, noise)
    return x, carry, prediction.x0

  placements = (sharing, drawing.everywhere(sharing), sharing)
  key = ("one step", solver, guided, clip, sharing)
  return model.programs.setdefault(key, jax.jit(step, out_shardings=placements))


def climb(
  model: Model, x: np.ndarray, ts: np.ndarray, *, label: np.ndarray | None = None, refine: int = 0
) -> Iterator[Moment]:
  """Walks from data up to level ``ts[0]``, as deterministic DDIM comes down; yields after each step.

  Args:
    model: The model.
    x: Images in data units, ``f32[B, H, W, C]``.
    ts: Decreasing levels to 0, ``[S+1]``.
    label: Classes, ``i32[B]``.
    refine: Largest number of fixed-point iterations of a step.
  """

  def up(model: Model, x: Any, levels: Any, label: Any, refine: Any) -> Any:
    denoise = model.denoiser(label=label, clip=False)
    return ddim_jax.invert(denoise, model.schedule, x, levels, refine=refine)

  program = model.programs.setdefault("one step up", jax.jit(up))
  sharing = drawing.by_example(len(x))
  placed = drawing.placed(model, sharing)
  here, label = jax.device_put((x, label), sharing)
  for i, (s, t) in enumerate(zip(ts[:0:-1], ts[-2::-1], strict=True)):
    here = program(placed, here, np.stack([t, s]), label, np.int32(refine))
    yield Moment(i + 1, float(t), np.asarray(here), np.asarray(here), model.pictures)
