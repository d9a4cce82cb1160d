"""DPM-Solver's singlestep rules: a second prediction within the step, no memory of earlier steps.

[1] Lu, Zhou, Bao, Chen, Li, Zhu. DPM-Solver, arXiv:2206.00927. [2] The same. DPM-Solver++, arXiv:2211.01095.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ddim_jax.checks import check_eta
from ddim_jax.denoisers import Denoiser
from ddim_jax.parameterisation import Prediction
from ddim_jax.process import renoise
from ddim_jax.schedules import Level, Schedule, fresh_noise, level_at, log_snr_at, wide
from ddim_jax.solvers import multistep
from ddim_jax.solvers.base import (
  Limit,
  Solver,
  Stepped,
  check_order,
  check_solver,
  half_log_snr,
  is_unbounded,
  with_mean_eps,
  with_mean_x0,
)
from ddim_jax.solvers.ddim import ddim_step


def half_way(
  denoise: Denoiser,
  schedule: Schedule,
  prediction: Prediction,
  x_t: jax.Array,
  t: Level,
  s: Level,
  **noise: Any,
) -> Prediction:
  """The prediction half way in lambda, reached by DDIM; where the step is unbounded, the one at ``t``.

  ``noise`` is ``eta`` and ``z`` of `ddim_step`, none by default.
  """
  unbounded = is_unbounded(schedule, t, s, x_t)

  def ask() -> Any:
    start, end = half_log_snr(schedule, t, x_t), half_log_snr(schedule, s, x_t)
    # With a level per example, those whose step is unbounded are asked at t once more.
    middle = level_at(schedule, start + jnp.where(unbounded, start, end)).reshape(jnp.shape(t))
    there = denoise(ddim_step(schedule, prediction, t, middle, **noise), middle)
    return jax.tree.map(lambda here, new: jnp.where(unbounded, here, new), prediction, Prediction(*there))

  found: Prediction = jax.lax.cond(jnp.all(unbounded), lambda: Prediction(*prediction), ask)
  return found


def dpm_solver_pp_2s() -> Solver:
  """DPM-Solver++(2S): two network evaluations per step, no memory; order 2. Deterministic.

  The prediction of x0 half way in lambda stands for its mean over the step. That point lies between integer
  levels: the network is given a level in floating point. The step to level 0 is DDIM and takes one
  evaluation. Algorithm 1 of [2] with r = 1/2.
  """

  def step(
    denoise: Denoiser, schedule: Schedule, carry: Any, x_t: jax.Array, t: Level, s: Level, z: jax.Array
  ) -> Stepped:
    prediction = denoise(x_t, t)
    x0 = half_way(denoise, schedule, prediction, x_t, t, s).x0
    return ddim_step(schedule, with_mean_x0(prediction, schedule, t, x0), t, s), carry, prediction

  return Solver(init=lambda x: (), step=step)


def dpm_solver_2() -> Solver:
  """DPM-Solver-2: as `dpm_solver_pp_2s`, with eps in place of x0; order 2. Deterministic.

  Algorithm 1 of [1] with r = 1/2. "DPM2" of k-diffusion, KDPM2DiscreteScheduler of diffusers; with
  `ancestral`, "DPM2 a" and KDPM2AncestralDiscreteScheduler.
  """

  def step(
    denoise: Denoiser, schedule: Schedule, carry: Any, x_t: jax.Array, t: Level, s: Level, z: jax.Array
  ) -> Stepped:
    prediction = denoise(x_t, t)
    eps = half_way(denoise, schedule, prediction, x_t, t, s).eps
    return ddim_step(schedule, with_mean_eps(prediction, schedule, t, eps), t, s), carry, prediction

  return Solver(init=lambda x: (), step=step)


def ancestral(solver: Solver, eta: ArrayLike = 1.0) -> Solver:
  r"""A deterministic solver made stochastic: it steps further down than ``s``, and noise is added.

  The level between has :math:`\sigma / \alpha` smaller by :math:`\sqrt{1 - f^2}`, with f of `ddim_step`, so
  that the noise restores the marginal at ``s``. ``ancestral(ddim(), eta)`` is ``ddim(eta)``.

  Args:
    solver: Without memory of earlier steps, such as `dpm_solver_2` or `dpm_solver_pp_2s`.
    eta: Dimensionless in [0, 1], as in `ddim_step`. Traced.

  Raises:
    ValueError: If ``eta`` is outside [0, 1] and not traced, or the solver draws several noises of its own;
      when sampling begins, if it remembers.
  """
  check_eta(eta)
  check_solver(solver)
  if solver.draws != 1:
    raise ValueError(f"solver must be deterministic, got one that takes {solver.draws} draws of noise a step")

  def init(x: jax.Array) -> Any:
    carry = solver.init(x)
    if jax.tree.leaves(carry):
      raise ValueError("solver must not remember earlier steps: their levels are not those of the samples")
    return carry

  def step(
    denoise: Denoiser, schedule: Schedule, carry: Any, x_t: jax.Array, t: Level, s: Level, z: jax.Array
  ) -> Stepped:
    log_snr = log_snr_at(schedule, s, x_t)
    f = jnp.asarray(eta, log_snr.dtype) * fresh_noise(schedule, t, s, x_t).astype(log_snr.dtype)
    log_snr -= jnp.log(jnp.maximum(1 - f**2, 1e-30))
    down = jnp.minimum(level_at(schedule, log_snr).reshape(jnp.shape(s)), jnp.asarray(s, log_snr.dtype))
    x, carry, prediction = solver.step(denoise, schedule, carry, x_t, t, down, z)
    return renoise(schedule, x, z, down, s), carry, prediction

  return Solver(init, step)


class _Base(NamedTuple):
  number: jax.Array  # of steps since the base
  level: jax.Array  # f32[B]: where the base is
  prediction: Prediction  # there


def dpm_solver_pp_singlestep(order: int = 2, eta: ArrayLike = 0.0, *, limit: Limit | None = None) -> Solver:
  r"""DPM-Solver++ as singlestep: one network evaluation per step, in cycles of ``order`` steps.

  A cycle begins with a DDIM step; the next starts once more from where the cycle began, its base, with a mean
  of x0 through the predictions at the base and now; at order 3 so does a third. The levels between are thus
  the inner points of one step of the paper's. A step to level 0 is DDIM from where it is.

  Other code: DPMSolverSinglestepScheduler of diffusers. On levels that are not spaced as the paper's inner
  points are, order 3 is of second order (measured in our tests).

  Args:
    order: 1, 2 or 3. Static.
    eta: Dimensionless in [0, 1], as in `ddim_step`: 0 deterministic, 1 the SDE. Traced.
    limit: Highest order of a step, as in `ddim_jax.dpm_solver_pp`.

  Raises:
    ValueError: If ``order`` is none of them, or ``eta`` is outside [0, 1] and not traced.

  References:
    Algorithm 1 of [2], section 4.1 of [1] (module docstring).
  """
  check_order(order, 3)
  check_eta(eta)

  def init(x: jax.Array) -> Any:
    levels = jnp.zeros(x.shape[:1], wide(x.dtype))
    return _Base(jnp.int32(0), levels, Prediction(jnp.zeros_like(x), jnp.zeros_like(x)))

  def step(
    denoise: Denoiser, schedule: Schedule, base: Any, x_t: jax.Array, t: Level, s: Level, z: jax.Array
  ) -> Stepped:
    prediction = Prediction(*denoise(x_t, t))
    highest = order if limit is None else jnp.minimum(limit(t, s), order)
    fresh = (base.number == 0) | (base.number >= highest) | is_unbounded(schedule, t, s, x_t)
    start = jnp.broadcast_to(jnp.asarray(t, base.level.dtype), base.level.shape)
    level = jnp.where(fresh.reshape(-1), start, base.level)
    first = jax.tree.map(lambda new, old: jnp.where(fresh, new, old), prediction, base.prediction)
    begin, now, end = (half_log_snr(schedule, at, x_t) for at in (level, t, s))
    h = jnp.where(fresh, 0, end - begin)
    f = (eta * fresh_noise(schedule, level, s, x_t)).astype(h.dtype)
    moment = multistep.moments(h - 0.5 * jnp.log(jnp.maximum(1 - f**2, 1e-30)), 1)[0]
    share = jnp.where(base.number == 1, 0.5, moment) * h / jnp.where(fresh, 1, now - begin)
    x0 = first.x0 + share.astype(x_t.dtype) * (prediction.x0 - first.x0)
    x_s = ddim_step(schedule, with_mean_x0(first, schedule, level, x0), level, s, eta=eta, z=z)
    number = jnp.where(jnp.all(fresh), 1, base.number + 1) % order
    return x_s, _Base(number, level, first), prediction

  return Solver(init, step)
