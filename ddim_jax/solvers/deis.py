"""DEIS: the mean of eps by extrapolation in log(sigma / alpha), [1].

[1] Zhang, Chen. Fast Sampling of Diffusion Models with Exponential Integrator, arXiv:2204.13902.
"""

from typing import Any

import jax
import jax.numpy as jnp

from ddim_jax.denoisers import Denoiser
from ddim_jax.schedules import Level, Schedule
from ddim_jax.solvers import multistep
from ddim_jax.solvers.base import (
  Limit,
  Solver,
  Stepped,
  check_order,
  half_log_snr,
  is_unbounded,
  with_mean_eps,
)
from ddim_jax.solvers.ddim import ddim_step


def deis(order: int = 3, *, limit: Limit | None = None) -> Solver:
  r"""Exponential Adams-Bashforth in eps: one network evaluation per step, deterministic.

  .. math::
    x_s = \frac{\alpha_s}{\alpha_t} x_t - \sigma_s (e^h - 1)\, \bar\epsilon, \qquad
    \bar\epsilon = \frac{\int_{\lambda_t}^{\lambda_s} e^{-\lambda} P(\lambda)\, d\lambda}
                        {\int_{\lambda_t}^{\lambda_s} e^{-\lambda}\, d\lambda}

  where the polynomial P goes through the last ``order`` predictions of eps. The first steps are of lower
  order, and so is a step to level 0. The logarithmic variant, "logrho" in diffusers, which stops at
  level 1 and not at 0. Order 1 is DDIM.

  Args:
    order: 1, 2 or 3. Static.
    limit: Highest order of a step, such as `ddim_jax.lower_order_final`. None is none.

  Raises:
    ValueError: If ``order`` is none of them.

  References:
    Section 3 of [1] (module docstring), DEIS-rhoAB with the change of variable log(rho).
  """
  check_order(order, 3)

  def step(
    denoise: Denoiser, schedule: Schedule, history: Any, x_t: jax.Array, t: Level, s: Level, z: jax.Array
  ) -> Stepped:
    prediction = denoise(x_t, t)
    now = half_log_snr(schedule, t, x_t)
    h = jnp.where(is_unbounded(schedule, t, s, x_t), 0, half_log_snr(schedule, s, x_t) - now)
    first, second = multistep.moments(-h, 2)
    known = history if limit is None else multistep.limited(history, limit(t, s))
    eps = multistep.mean(now, prediction.eps, known, h * first, h**2 * second)
    x_s = ddim_step(schedule, with_mean_eps(prediction, schedule, t, eps), t, s)
    return x_s, multistep.push(history, now, prediction.eps), prediction

  return Solver(init=lambda x: multistep.empty(x, order - 1), step=step)
