"""Inversion: from data to the noise that a deterministic solver turns into it."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ddim_jax.checks import check_decreasing, check_positive, check_range, check_whole
from ddim_jax.denoisers import Denoiser
from ddim_jax.parameterisation import Prediction
from ddim_jax.sampling import check_chain
from ddim_jax.schedules import Level, Schedule, coefficients
from ddim_jax.solvers import Solver, ddim, ddim_step
from ddim_jax.solvers.base import check_solver


def climb(denoise: Denoiser, schedule: Schedule, x_s: jax.Array, s: Level, t: Level) -> jax.Array:
  """A DDIM step up, from level ``s`` to the noisier ``t``, the network asked at level ``max(s, 1)``.

  Args:
    denoise: ``(x_t, t) -> Prediction``.
    schedule: Noise schedule. Traced.
    x_s: Sample at level ``s``, ``f32[B, ...]``.
    s: Level in ``[0, T]``, ``i32[]`` or ``f32[]``. Traced.
    t: Level to reach, likewise. Traced.
  """
  alpha, sigma = coefficients(schedule, s, x_s)
  eps = denoise(x_s, jnp.maximum(s, 1)).eps
  return ddim_step(schedule, Prediction((x_s - sigma * eps) / alpha, eps), s, t)


def rounding(x: jax.Array) -> float:
  """Eight times the spacing of the numbers of x's dtype at 1: 1e-6 for float32."""
  return float(8 * jnp.finfo(x.dtype).eps)


def step_up(
  denoise: Denoiser,
  schedule: Schedule,
  solver: Solver,
  x_s: jax.Array,
  s: Level,
  t: Level,
  refine: int | jax.Array,
  damping: float | jax.Array,
  tolerance: float | jax.Array,
) -> tuple[jax.Array, jax.Array]:
  r"""The point at level ``t`` from which a step of the solver lands on ``x_s``; see `invert`.

  A plain iteration adds the miss :math:`m = d\, (\alpha_t / \alpha_s) (x_s - F(x_t))`. From the second on, an
  iteration also mixes in the previous move, by the weight that minimises the miss if F is linear between the
  two points: Anderson acceleration with a memory of one, the secant method in one dimension, per example.

  Returns:
    ``(x_t, count)``: the point, ``f32[B, ...]``, and ``i32[]``, how many iterations were made before all
    examples missed by less than ``tolerance``, at most ``refine``.
  """
  carry = solver.init(x_s)
  (alpha_t, _), (alpha_s, _) = coefficients(schedule, t, x_s), coefficients(schedule, s, x_s)
  gain = jnp.asarray(damping, x_s.dtype) * alpha_t / alpha_s
  mean = lambda product: jnp.mean(product, axis=tuple(range(1, x_s.ndim)), keepdims=True)

  def move(
    x_t: jax.Array, before: jax.Array, missed_before: jax.Array, count: jax.Array
  ) -> tuple[jax.Array, ...]:
    landed = solver.step(denoise, schedule, carry, x_t, t, s, jnp.zeros_like(x_t))[0]
    off = x_s - landed
    missed = gain * off
    change = missed - missed_before
    squared = mean(change**2)
    usable = (squared > 0) & (count > 0)
    share = jnp.where(usable, mean(change * missed) / jnp.where(usable, squared, 1), 0)
    moved = x_t + missed - share * (x_t - before + change)
    wanted = mean(off**2) > jnp.square(jnp.asarray(tolerance, x_s.dtype))
    return jnp.where(wanted, moved, x_t), x_t, missed, count + 1, jnp.any(wanted)

  def iterate(_: Any, state: Any) -> tuple[jax.Array, ...]:
    *found, unfinished = state
    result: tuple[jax.Array, ...] = jax.lax.cond(unfinished, lambda: move(*found), lambda: tuple(state))
    return result

  first = climb(denoise, schedule, x_s, s, t)
  state = (first, first, jnp.zeros_like(first), jnp.zeros((), jnp.int32), jnp.ones((), bool))
  x_t, _, _, count, _ = jax.lax.fori_loop(0, refine, iterate, state)
  return x_t, count


def invert(
  denoise: Denoiser,
  schedule: Schedule,
  x0: jax.Array,
  ts: ArrayLike,
  *,
  refine: int | jax.Array = 0,
  damping: float | jax.Array = 1.0,
  tolerance: float | jax.Array | None = None,
  solver: Solver | None = None,
) -> jax.Array:
  r"""Finds the noise from which a deterministic solver makes ``x0``.

  A step from level t down to s maps x_t to x_s = F(x_t). Going up, the network should be asked at x_t,
  which is not known yet: plain inversion is a DDIM step from where it stands, an error of first order
  in 1/S (a network is never asked at level 0, where none is trained: level 1 there). Each refinement
  then steps down from the point just found and moves it by what it missed,

  .. math:: x_t \leftarrow x_t + d\, \frac{\alpha_t}{\alpha_s} \bigl(x_s - F(x_t)\bigr),

  whose fixed point, for DDIM, is the step from x_s up to t with eps asked at x_t; it is accelerated (see
  `step_up`). Most steps converge to rounding in a few iterations. The steps next to clean data take tens
  where an image is a plain background: there the network finds x0 whatever the noise, so that F hardly
  depends on x_t. A step's iterations end when every example lands where it should, so that a large ``refine``
  costs only where it helps.
  `ddim_jax.bijective` is exact whatever the network.

  Args:
    denoise: ``(x_t, t) -> Prediction``. Clipping or thresholding cannot be inverted: leave it out.
    schedule: Noise schedule. Traced.
    x0: Samples at level ``ts[-1]``, ``f32[B, ...]``.
    ts: The decreasing levels that `sample` would use, ``i32[S+1]`` or ``f32[S+1]``; values traced, S static.
    refine: Largest number of iterations per step, at least 0; each costs one step of the solver. Static, or
      traced ``i32[]``, which rules out reverse-mode derivatives.
    damping: Dimensionless, in (0, 1]; 1 is undamped. Traced.
    tolerance: How near a step down must land, root mean square in data units, for an example to be left
      alone; by default `rounding`. Traced.
    solver: What `sample` will use, `ddim()` by default: deterministic and without memory of earlier steps.

  Returns:
    The sample at level ``ts[0]``, ``f32[B, ...]``.

  Raises:
    ValueError: At trace time, on a wrong shape or dtype of ``x0`` or ``ts``, or a solver with memory; also if
      values that are not traced are out of range: levels that do not decrease, ``refine``, ``damping``,
      ``tolerance``.

  References:
    Section 4.3 of arXiv:2010.02502; fixed point: Pan et al., arXiv:2309.04907; acceleration: Walker and Ni,
    Anderson Acceleration for Fixed-Point Iterations, SIAM J. Numer. Anal. 49, 2011.
  """
  given, solver = ts, ddim() if solver is None else solver
  check_solver(solver)
  denoise, ts = check_chain(denoise, schedule, x0, ts, "x0")
  check_decreasing(given, schedule.T)
  check_whole("refine", refine, 0, jnp.inf)
  check_range("damping", damping, 0, 1)
  check_positive("damping", damping)
  if jax.tree.leaves(solver.init(x0)):
    raise ValueError("solver must not remember earlier steps: going up, they are not known yet")
  tolerance = rounding(x0) if tolerance is None else tolerance
  check_range("tolerance", tolerance, 0, jnp.inf)

  def step(x_s: jax.Array, levels: Any) -> Any:
    t, s = levels
    return step_up(denoise, schedule, solver, x_s, s, t, refine, damping, tolerance)[0], None

  return jax.lax.scan(step, x0, (ts[-2::-1], ts[:0:-1]))[0]
