"""UniPC: DPM-Solver++ as predictor, and a corrector that costs no evaluation, [1].

[1] Zhao, Bai, Rao, Zhou, Lu. UniPC: A Unified Predictor-Corrector Framework, arXiv:2302.04867.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ddim_jax.denoisers import Denoiser
from ddim_jax.schedules import Level, Schedule, coefficients
from ddim_jax.solvers import multistep
from ddim_jax.solvers.base import Limit, Solver, Stepped, check_order, half_log_snr, moved, with_mean_x0
from ddim_jax.solvers.ddim import ddim_step
from ddim_jax.solvers.dpm_solver_pp import dpm_solver_pp, predicted_mean


class _Carry(NamedTuple):
  history: multistep.History  # of x0; the newest is from where the last step began
  x: jax.Array  # the corrected sample there
  sigma: jax.Array  # its noise


def _corrected_mean(h: jax.Array, x0: jax.Array, history: Any) -> jax.Array:
  """Mean of x0 over the last step, through its predictions at both ends and before it.

  Newton's form with ``p_0`` (where it began), the new one at ``p_0 + h``, and the earlier ones. Of second
  order while there is nothing before.
  """
  began, *before = history.at
  last, *earlier = history.value
  first, second, third = multistep.moments(h, 3)
  two = multistep.present(history, 1)
  result = last + jnp.where(two, first, 0.5).astype(x0.dtype) * (x0 - last)
  gap_1 = multistep.gap(began, before[0])
  slope = (last - earlier[0]) / gap_1.astype(x0.dtype)
  bend = ((x0 - last) - h.astype(x0.dtype) * slope) / (h + gap_1).astype(x0.dtype)
  curved: jax.Array = result + jnp.where(two, h * (second - first), 0).astype(x0.dtype) * bend
  if len(before) == 1:
    return curved
  gap_2 = multistep.gap(before[0], before[1])
  span = gap_1 + gap_2
  past_bend = (slope - (earlier[0] - earlier[1]) / gap_2.astype(x0.dtype)) / span.astype(x0.dtype)
  twist = (bend - h.astype(x0.dtype) * past_bend) / (h + span).astype(x0.dtype)
  weight = h * (h * third + (gap_1 - h) * second - gap_1 * first)
  found: jax.Array = curved + jnp.where(multistep.present(history, 2), weight, 0).astype(x0.dtype) * twist
  return found


def _correct(schedule: Schedule, carry: _Carry, x_t: jax.Array, t: Level, x0: jax.Array) -> jax.Array:
  """``x_t`` with the last step taken again, now that the prediction at its end is known."""
  began = carry.history.at[0]
  stepped = multistep.present(carry.history, 0)
  h = jnp.where(stepped, half_log_snr(schedule, t, x_t) - began, 1)
  average = _corrected_mean(h, x0, carry.history)
  alpha, sigma = coefficients(schedule, t, x_t)
  corrected = sigma / carry.sigma * carry.x - alpha * jnp.expm1(-h).astype(x_t.dtype) * average
  return jnp.where(stepped, corrected, x_t)


def unipc(order: int = 2, *, limit: Limit | None = None) -> Solver:
  r"""UniPC: one network evaluation per step, deterministic.

  The prediction at ``x_t`` first corrects ``x_t`` itself: the last step, from level r, is taken again with
  a mean of x0 through the predictions at both of its ends,

  .. math::
    x_t^c = \frac{\sigma_t}{\sigma_r} x_r^c + \alpha_t (1 - e^{-h})\, \bar x_0(r, t, \dots),

  and the next step is predicted from there as in `dpm_solver_pp`. This raises the order by one, to
  ``order + 1``. The variant is B2 ("bh2" in diffusers). Order 1 here is the predictor alone, DDIM, so that
  it is that in every family; a corrector would make it a second-order method.

  Args:
    order: 1, 2 or 3, of the predictor. Static.
    limit: Highest order of a step's predictor and of the corrector after it, such as
      `ddim_jax.lower_order_final`. None is none.

  Raises:
    ValueError: If ``order`` is none of them.

  References:
    Algorithms 5 and 6 of [1] (module docstring).
  """
  check_order(order, 3)
  if order == 1:
    return dpm_solver_pp(1)

  def init(x: jax.Array) -> _Carry:
    return _Carry(multistep.empty(x, order), x, jnp.ones(x.shape[:1] + (1,) * (x.ndim - 1), x.dtype))

  def step(
    denoise: Denoiser, schedule: Schedule, carry: Any, x_t: jax.Array, t: Level, s: Level, z: jax.Array
  ) -> Stepped:
    prediction = denoise(x_t, t)
    corrected = _correct(schedule, carry, x_t, t, prediction.x0)
    now = half_log_snr(schedule, t, x_t)
    past = carry.history if limit is None else multistep.limited(carry.history, limit(t, s))
    known = multistep.History(*(part[: order - 1] for part in past))
    x0 = predicted_mean(schedule, prediction.x0, known, t, s)
    there = moved(prediction, schedule, t, corrected - x_t)
    x_s = ddim_step(schedule, with_mean_x0(there, schedule, t, x0), t, s)
    _, sigma = coefficients(schedule, t, x_t)
    history = multistep.push(past, now, prediction.x0)
    return x_s, _Carry(history, corrected, jnp.broadcast_to(sigma, carry.sigma.shape)), prediction

  return Solver(init, step)
