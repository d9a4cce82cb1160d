"""PNDM and PLMS: classical rules of higher order for eps, with DDIM as the transfer, [1].

The rules are those for evenly spaced steps and are applied to any levels, as in all published code; the
order in the number of steps is 2 (theorem 3.2 of [1]).

[1] Liu, Ren, Lin, Zhao. Pseudo Numerical Methods for Diffusion Models on Manifolds, arXiv:2202.09778.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ddim_jax.denoisers import Denoiser
from ddim_jax.schedules import Level, Schedule
from ddim_jax.solvers.base import Solver, Stepped, check_order, is_unbounded, where_to_ask, with_mean_eps
from ddim_jax.solvers.ddim import ddim_step

_ADAMS_BASHFORTH = (
  (1, 0, 0, 0),
  (3 / 2, -1 / 2, 0, 0),
  (23 / 12, -16 / 12, 5 / 12, 0),
  (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)


class _Carry(NamedTuple):
  number: jax.Array  # of steps so far, at most as many as are remembered
  eps: tuple[jax.Array, ...]  # the newest first


def _init(order: int) -> Callable[[jax.Array], _Carry]:
  return lambda x: _Carry(jnp.int32(0), (jnp.zeros_like(x),) * (order - 1))


def _push(carry: _Carry, eps: jax.Array) -> _Carry:
  number = jnp.minimum(carry.number + 1, len(carry.eps))
  return _Carry(number, (eps, *carry.eps)[: len(carry.eps)])


def _adams_bashforth(carry: _Carry, eps: jax.Array) -> jax.Array:
  weights = jnp.asarray(_ADAMS_BASHFORTH, eps.dtype)[carry.number]
  found: jax.Array = sum(w * e for w, e in zip(weights, (eps, *carry.eps), strict=False))
  return found


def plms(order: int = 4) -> Solver:
  r"""Pseudo linear multistep: one network evaluation per step, two at the first. Deterministic.

  .. math::
    \bar\epsilon = \tfrac{1}{24}
      (55 \hat\epsilon_0 - 59 \hat\epsilon_1 + 37 \hat\epsilon_2 - 9 \hat\epsilon_3)

  and a DDIM step with it, :math:`\hat\epsilon_i` being the prediction i steps ago. Before there are that
  many, the rules of lower order; the first step is Heun's. Order 1 is DDIM.

  Args:
    order: Number of predictions, 1 to 4. Static.

  Raises:
    ValueError: If ``order`` is none of them.

  References:
    Section 3.3 of [1] (module docstring); ``PNDMScheduler(skip_prk_steps=True)`` of diffusers.
  """
  check_order(order, 4)

  def step(
    denoise: Denoiser, schedule: Schedule, carry: Any, x_t: jax.Array, t: Level, s: Level, z: jax.Array
  ) -> Stepped:
    prediction = denoise(x_t, t)
    unbounded = is_unbounded(schedule, t, s, x_t)

    def heun() -> jax.Array:
      ahead = ddim_step(schedule, prediction, t, s)
      return (prediction.eps + denoise(*where_to_ask(unbounded, (x_t, t), (ahead, s))).eps) / 2

    rule = lambda: _adams_bashforth(carry, prediction.eps)
    start = (carry.number == 0) & ~jnp.all(unbounded)
    eps = jax.lax.cond(start, heun, rule) if order > 1 else prediction.eps
    x_s = ddim_step(schedule, with_mean_eps(prediction, schedule, t, eps), t, s)
    return x_s, _push(carry, prediction.eps), prediction

  return Solver(_init(order), step)


def pndm() -> Solver:
  """PLMS of order 4 whose first three steps are Runge-Kutta's, four network evaluations each.

  Half way means half way in level, which may lie between integers: the network is then asked in floating
  point. Deterministic. Algorithm 2 of [1], F-PNDM; ``PNDMScheduler()`` of diffusers.
  """

  def step(
    denoise: Denoiser, schedule: Schedule, carry: Any, x_t: jax.Array, t: Level, s: Level, z: jax.Array
  ) -> Stepped:
    first = denoise(x_t, t)
    unbounded = is_unbounded(schedule, t, s, x_t)

    def runge_kutta() -> jax.Array:
      half_way = (jnp.asarray(t) + jnp.asarray(s)) / 2

      def ask(eps: jax.Array, level: Level) -> jax.Array:
        x = ddim_step(schedule, with_mean_eps(first, schedule, t, eps), t, level)
        return denoise(*where_to_ask(unbounded, (x_t, t), (x, level))).eps

      second = ask(first.eps, half_way)
      third = ask(second, half_way)
      fourth = ask(third, s)
      # Where the step is unbounded all four are the same, but their mean may be off by its rounding.
      return jnp.where(unbounded, first.eps, (first.eps + 2 * second + 2 * third + fourth) / 6)

    rule = lambda: _adams_bashforth(carry, first.eps)
    eps = jax.lax.cond((carry.number < 3) & ~jnp.all(unbounded), runge_kutta, rule)
    x_s = ddim_step(schedule, with_mean_eps(first, schedule, t, eps), t, s)
    return x_s, _push(carry, first.eps), first

  return Solver(_init(4), step)
