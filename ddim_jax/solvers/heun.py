"""EDM's sampler: Heun's rule in sigma / alpha, with churn, [1].

[1] Karras, Aittala, Aila, Laine. Elucidating the Design Space of Diffusion-Based Generative Models,
arXiv:2206.00364.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ddim_jax.checks import check_finite, check_interval, check_range
from ddim_jax.denoisers import Denoiser
from ddim_jax.process import renoise
from ddim_jax.schedules import Level, Schedule, level_at, log_snr_at
from ddim_jax.solvers.base import Solver, Stepped, check_order, is_unbounded, where_to_ask, with_mean_eps
from ddim_jax.solvers.ddim import ddim_step


def _churned(
  schedule: Schedule,
  x_t: jax.Array,
  t: Level,
  z: jax.Array,
  churn: ArrayLike,
  inflation: ArrayLike,
  interval: Any,
) -> Any:
  """``x_t`` with noise added until sigma / alpha has grown by a factor ``1 + churn``, and its level."""
  log_snr = log_snr_at(schedule, t, x_t)
  ratio = jnp.exp(-0.5 * log_snr)
  inside = (interval[0] <= ratio) & (ratio <= interval[1])
  raised = (log_snr - 2 * jnp.log1p(jnp.where(inside, churn, 0))).astype(log_snr.dtype)
  raised = level_at(schedule, raised).reshape(jnp.shape(t))
  unchanged = jnp.asarray(t, raised.dtype)
  # Without churn the level is t itself, not t but for rounding: its noise would be the root of that.
  added = inside.reshape(jnp.shape(t)) & (jnp.asarray(churn) > 0)
  level = jnp.where(added, jnp.maximum(raised, unchanged), unchanged)
  return renoise(schedule, x_t, jnp.asarray(inflation, x_t.dtype) * z, t, level), level


def heun(
  order: int = 2, churn: ArrayLike | None = None, inflation: ArrayLike = 1.0, interval: Any = (0.0, jnp.inf)
) -> Solver:
  r"""EDM's sampler on the levels of any schedule: two network evaluations per step.

  In :math:`\rho = \sigma / \alpha` and :math:`x / \alpha` the process is :math:`d(x / \alpha) / d\rho =
  \epsilon`, DDIM is Euler's rule, and Heun's takes the mean of eps at both ends of the step:

  .. math::
    \frac{x_s}{\alpha_s} = \frac{x_t}{\alpha_t} + (\rho_s - \rho_t)
      \frac{\hat\epsilon(x_t, t) + \hat\epsilon(x_s^{\text{DDIM}}, s)}{2}

  The step to level 0 is DDIM and takes one evaluation, so S steps take 2 S - 1. The paper's spacing is
  `ddim_jax.timesteps.karras`.

  Args:
    order: 2, or 1 for Euler's rule, which is DDIM. Static.
    churn: By which share rho is raised with fresh noise before every step, the paper's gamma
      (``S_churn / S``, at most 0.41 there). Traced. The network is asked at a level between integers, at
      most the schedule's last. None adds none, and levels stay as given.
    inflation: Factor on that noise, the paper's S_noise. Traced.
    interval: Range of rho within which noise is added, the paper's S_tmin and S_tmax. Traced.

  Raises:
    ValueError: If ``order`` is neither; or ``churn`` is negative, ``inflation`` not finite or ``interval`` no
      pair of rising numbers, and not traced.

  References:
    Algorithm 2 of [1] (module docstring).
  """
  check_order(order, 2)
  if churn is not None:
    check_finite("churn", churn)
    check_range("churn", churn, 0, jnp.inf)
  check_finite("inflation", inflation)
  check_interval(interval)

  def step(
    denoise: Denoiser, schedule: Schedule, carry: Any, x_t: jax.Array, t: Level, s: Level, z: jax.Array
  ) -> Stepped:
    if churn is not None:
      x_t, t = _churned(schedule, x_t, t, z, churn, inflation, interval)
    prediction = denoise(x_t, t)
    euler = ddim_step(schedule, prediction, t, s)
    if order == 1:
      return euler, carry, prediction
    unbounded = is_unbounded(schedule, t, s, x_t)

    def both_ends() -> jax.Array:
      other = denoise(*where_to_ask(unbounded, (x_t, t), (euler, s))).eps
      return jnp.where(unbounded, prediction.eps, (prediction.eps + other) / 2)

    eps = jax.lax.cond(jnp.all(unbounded), lambda: prediction.eps, both_ends)
    return ddim_step(schedule, with_mean_eps(prediction, schedule, t, eps), t, s), carry, prediction

  return Solver(init=lambda x: (), step=step)
