"""DPM-Solver++, multistep: the mean of x0 by extrapolation, [1]; deterministic or stochastic.

[1] Lu, Zhou, Bao, Chen, Li, Zhu. DPM-Solver++, arXiv:2211.01095.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ddim_jax.checks import check_eta, check_finite
from ddim_jax.denoisers import Denoiser
from ddim_jax.schedules import Level, Schedule, fresh_noise
from ddim_jax.solvers import multistep
from ddim_jax.solvers.base import (
  Limit,
  Solver,
  Stepped,
  check_order,
  half_log_snr,
  is_unbounded,
  with_mean_x0,
)
from ddim_jax.solvers.ddim import ddim_step


def predicted_mean(
  schedule: Schedule,
  x0: jax.Array,
  history: multistep.History,
  t: Level,
  s: Level,
  eta: ArrayLike = 0.0,
  curvature: Any = 1.0,
  exact: Any = False,
) -> jax.Array:
  r"""Mean of x0 over the step from ``t`` to ``s``, extrapolated from the last one, two or three values.

  With eta the exponential weight grows at :math:`u = h - \log\sqrt{1 - f^2}` instead of ``h``, so that
  ``eta = 1`` has the :math:`2h` of the stochastic solver. See `dpm_solver_pp` for the arguments.
  """
  now = half_log_snr(schedule, t, x0)
  h = jnp.where(is_unbounded(schedule, t, s, x0), 0, half_log_snr(schedule, s, x0) - now)
  if len(history.value) < 2 and not exact:
    return multistep.mean(now, x0, history, h / 2)
  f = (eta * fresh_noise(schedule, t, s, x0)).astype(h.dtype)
  first, second = multistep.moments(h - 0.5 * jnp.log(jnp.maximum(1 - f**2, 1e-30)), 2)
  if len(history.value) < 2:
    return multistep.mean(now, x0, history, h * first)
  three = multistep.present(history, 1)
  first = h * first if exact else jnp.where(three, h * first, h / 2)
  second = jnp.where(three, curvature * h**2 * second, 0)
  return multistep.mean(now, x0, history, first, second)


def dpm_solver_pp(
  order: int = 2,
  eta: ArrayLike = 0.0,
  curvature: Any = 1.0,
  *,
  exact: bool = False,
  limit: Limit | None = None,
) -> Solver:
  r"""DPM-Solver++, multistep: one network evaluation per step.

  .. math::
    x_s = \frac{\sigma_s}{\sigma_t} x_t + \alpha_s (1 - e^{-h})\, \bar x_0, \qquad
    \bar x_0 = \hat x_0(t) + \frac{h}{2} \hat x_0[t, t'] \quad\text{(order 2)}

  with :math:`\hat x_0[t, t']` the slope in lambda from the last step's prediction. Order 3 integrates the
  parabola through three predictions exactly. The first steps are of lower order, and so is a step to
  level 0. With :math:`\bar x_0` in place of its prediction it is a DDIM step: ``eta = 1`` gives the
  stochastic solver SDE-DPM-Solver++, and order 1 is DDIM.

  Other code: order 3 as published by the authors, in diffusers and in k-diffusion weighs the second
  derivative by half of what the integral gives, which makes it second order (measured in our tests).
  ``curvature=0.5`` gives those numbers.

  Args:
    order: 1, 2 (midpoint rule) or 3. Static.
    eta: Dimensionless in [0, 1], as in `ddim_step`: 0 deterministic, 1 the SDE. Traced.
    curvature: Weight of the second derivative at order 3. Traced.
    exact: Integrate the line of order 2 under the exponential weight, as order 3 does its parabola, instead
      of by the midpoint rule: ``solver_type="heun"`` in diffusers. Static.
    limit: Highest order of a step, such as `ddim_jax.lower_order_final`. None is none.

  Raises:
    ValueError: If ``order`` is none of them, or ``eta`` is outside [0, 1] and not traced.

  References:
    Algorithm 2 and section 5 of [1] (module docstring); [2] github.com/LuChengTHU/dpm-solver.
  """
  check_order(order, 3)
  check_eta(eta)
  check_finite("curvature", curvature)

  def step(
    denoise: Denoiser, schedule: Schedule, history: Any, x_t: jax.Array, t: Level, s: Level, z: jax.Array
  ) -> Stepped:
    prediction = denoise(x_t, t)
    known = history if limit is None else multistep.limited(history, limit(t, s))
    x0 = predicted_mean(schedule, prediction.x0, known, t, s, eta, curvature, exact)
    average = with_mean_x0(prediction, schedule, t, x0)
    x_s = ddim_step(schedule, average, t, s, eta=eta, z=z)
    return x_s, multistep.push(history, half_log_snr(schedule, t, x_t), prediction.x0), prediction

  return Solver(init=lambda x: multistep.empty(x, order - 1), step=step)
