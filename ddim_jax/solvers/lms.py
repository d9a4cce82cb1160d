"""LMS: the mean of eps by extrapolation in sigma / alpha, the linear multistep sampler of k-diffusion."""

from typing import Any

import jax
import jax.numpy as jnp

from ddim_jax.denoisers import Denoiser
from ddim_jax.schedules import LOG_SNR_LIMIT, Level, Schedule, log_snr_at
from ddim_jax.solvers import multistep
from ddim_jax.solvers.base import Solver, Stepped, check_order, half_log_snr, with_mean_eps
from ddim_jax.solvers.ddim import ddim_step


def lms(order: int = 4) -> Solver:
  r"""Adams-Bashforth in :math:`\rho = \sigma / \alpha` for steps of any size: one evaluation per step.

  .. math:: \frac{x_s}{\alpha_s} = \frac{x_t}{\alpha_t} + \int_{\rho_t}^{\rho_s} P(\rho)\, d\rho

  where the polynomial P goes through the last ``order`` predictions of eps. The first steps are of lower
  order; the step to level 0, where rho is 0, is not. Deterministic. Order 1 is DDIM.

  Args:
    order: 1 to 4. Static.

  Raises:
    ValueError: If ``order`` is none of them.

  References:
    ``sample_lms`` of github.com/crowsonkb/k-diffusion; LMSDiscreteScheduler of diffusers.
  """
  check_order(order, 4)

  def step(
    denoise: Denoiser, schedule: Schedule, history: Any, x_t: jax.Array, t: Level, s: Level, z: jax.Array
  ) -> Stepped:
    prediction = denoise(x_t, t)
    now, end = (-jnp.exp(-half_log_snr(schedule, level, x_t)) for level in (t, s))  # rises, as lambda does
    h = jnp.where(log_snr_at(schedule, t, x_t) <= -LOG_SNR_LIMIT, 0, end - now)
    eps = multistep.mean(now, prediction.eps, history, h / 2, h**2 / 3, h**3 / 4)
    x_s = ddim_step(schedule, with_mean_eps(prediction, schedule, t, eps), t, s)
    return x_s, multistep.push(history, now, prediction.eps), prediction

  return Solver(init=lambda x: multistep.empty(x, order - 1), step=step)
