"""SA-Solver: a stochastic Adams predictor and corrector with any amount of noise, [1].

[1] Xue et al. SA-Solver: Stochastic Adams Solver for Fast Sampling of Diffusion Models, arXiv:2309.05019.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ddim_jax.checks import check_range
from ddim_jax.denoisers import Denoiser
from ddim_jax.parameterisation import Prediction
from ddim_jax.schedules import Level, Schedule, safe_sqrt, wide
from ddim_jax.solvers.base import Limit, Solver, Stepped, half_log_snr, is_unbounded, moved, with_mean_x0
from ddim_jax.solvers.ddim import ddim_step


class _Carry(NamedTuple):
  stepped: jax.Array  # whether there was a step before
  level: jax.Array  # f32[B]: where it began
  began: Prediction  # there, at the corrected sample
  z: jax.Array  # its noise


def _stretch(u: jax.Array) -> jax.Array:
  """``u / (1 - exp(-u))``."""
  safe = jnp.where(u == 0, 1, u)
  return jnp.where(u == 0, 1, safe / -jnp.expm1(-safe))


def _move(
  schedule: Schedule,
  prediction: Prediction,
  x0: jax.Array,
  t: Level,
  s: Level,
  share: Any,
  z: jax.Array,
) -> jax.Array:
  """A step with this mean of x0 and the noise of ``tau^2 = share``, as a share of that of eta = 1."""
  h = jnp.maximum(half_log_snr(schedule, s, x0) - half_log_snr(schedule, t, x0), 0)
  whole = jnp.where(h == 0, 1, -jnp.expm1(-2 * h))
  eta = safe_sqrt(jnp.clip(-jnp.expm1(-2 * share * h) / whole, 0, 1)).astype(wide(x0.dtype))
  return ddim_step(schedule, with_mean_x0(prediction, schedule, t, x0), t, s, eta=eta, z=z)


def sa_solver(tau: float | Callable[..., Any] = 1.0, *, limit: Limit | None = None) -> Solver:
  r"""SA-Solver with two predictions of x0: one network evaluation per step.

  The process with :math:`\tau` times the noise of ancestral sampling has, over a step, noise of variance
  :math:`\sigma_s^2 (1 - e^{-2 \tau^2 h})` and x0 under the weight :math:`e^{(1 + \tau^2) \lambda}`. The
  prediction at ``x_t`` first takes the last step again, with its own noise, by the trapezoidal rule; then the
  next step is extrapolated from the last two. The first step, and one to level 0, are of order 1. With
  ``tau`` 0 it is deterministic and of order 2.

  Args:
    tau: At least 0 and at most 1 (DDIM with eta = 1 at order 1), or a function of the level. Traced.
    limit: Highest order of the predictor, such as `ddim_jax.lower_order_final`. None is none.

  Raises:
    ValueError: If ``tau`` is outside [0, 1] and not traced.

  References:
    Algorithm 1 of [1] (module docstring); SASolverScheduler of diffusers with orders 2 and 2, whose rules
    these are.
  """
  if not callable(tau):
    check_range("tau", tau, 0, 1)
  squared = lambda level: jnp.square(jnp.asarray(tau(level) if callable(tau) else tau, jnp.float32))

  def init(x: jax.Array) -> _Carry:
    levels, zero = jnp.zeros(x.shape[:1], wide(x.dtype)), jnp.zeros_like(x)
    return _Carry(jnp.array(False), levels, Prediction(zero, zero), zero)

  def step(
    denoise: Denoiser, schedule: Schedule, carry: Any, x_t: jax.Array, t: Level, s: Level, z: jax.Array
  ) -> Stepped:
    prediction = Prediction(*denoise(x_t, t))
    shaped = lambda share: share.reshape((-1,) + (1,) * (x_t.ndim - 1)).astype(wide(x_t.dtype))
    before, share = shaped(squared(carry.level)), shaped(squared(jnp.asarray(t)))
    now = half_log_snr(schedule, t, x_t)
    known = carry.stepped & ~is_unbounded(schedule, carry.level, t, x_t)
    back = jnp.where(known, now - half_log_snr(schedule, carry.level, x_t), 1)
    change = jnp.where(known, prediction.x0 - carry.began.x0, 0)

    end = _stretch((1 + before) * back) / 2
    again = carry.began.x0 + end.astype(x_t.dtype) * change
    corrected = _move(schedule, carry.began, again, carry.level, t, before, carry.z)
    there = moved(prediction, schedule, t, jnp.where(known, corrected - x_t, 0))

    h = jnp.where(is_unbounded(schedule, t, s, x_t), 0, half_log_snr(schedule, s, x_t) - now)
    slope = h / 2 * _stretch((1 + share) * h) / jnp.where(back == 0, jnp.inf, back)
    slope = slope if limit is None else jnp.where(limit(t, s) < 2, 0, slope)
    x0 = prediction.x0 + slope.astype(x_t.dtype) * change
    x_s = _move(schedule, there, x0, t, s, share, z)
    level = jnp.broadcast_to(jnp.asarray(t, carry.level.dtype), carry.level.shape)
    return x_s, _Carry(jnp.array(True), level, there, z), prediction

  return Solver(init, step)
