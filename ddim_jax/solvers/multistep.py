"""Averages over a step from predictions at earlier steps: what the multistep solvers share.

Predictions at ``lambda_0`` (now), ``lambda_1``, ``lambda_2`` (earlier) define a polynomial in lambda, and
the mean over the coming step is that polynomial's, under an exponential weight. All is in Newton's form, so
that a missing prediction is one infinitely far away, whose terms vanish: the order rises by itself.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddim_jax.schedules import Schedule
from ddim_jax.solvers.base import half_log_snr, wide

_ABSENT = 1e18  # far beyond any lambda; its square is still a float32


class History(NamedTuple):
  """Predictions at the latest levels, the newest first.

  Attributes:
    half_log_snr: Where they were made, each ``f32[B, 1, ...]``.
    value: The predictions, each ``f32[B, ...]``.
  """

  half_log_snr: tuple[jax.Array, ...]
  value: tuple[jax.Array, ...]


def empty(x: jax.Array, size: int) -> History:
  """A history of ``size`` predictions that are yet to come; ``x`` gives shape and dtype."""
  shape, dtype = x.shape[:1] + (1,) * (x.ndim - 1), wide(x.dtype)
  nowhere = tuple(jnp.full(shape, -_ABSENT * (i + 1), dtype) for i in range(size))
  return History(nowhere, (jnp.zeros_like(x),) * size)


def push(history: History, schedule: Schedule, t, value: jax.Array) -> History:
  """The history after a prediction at level ``t``; the oldest is dropped."""
  if not history.value:
    return history
  now = jnp.broadcast_to(half_log_snr(schedule, t, value), history.half_log_snr[0].shape)
  return History((now, *history.half_log_snr[:-1]), (value, *history.value[:-1]))


def present(history: History, i: int) -> jax.Array:
  """Whether there is a prediction number ``i``, ``bool[B, 1, ...]``."""
  return history.half_log_snr[i] > -_ABSENT / 2


def gap(later: jax.Array, earlier: jax.Array) -> jax.Array:
  """``later - earlier`` in lambda; a level visited twice in a row counts as infinitely far."""
  difference = later - earlier
  return jnp.where(difference == 0, _ABSENT, difference)


def moments(u: jax.Array, number: int) -> tuple[jax.Array, ...]:
  r"""Mean of :math:`p, p^2, \dots` over [0, 1] under a weight proportional to :math:`e^{u p}`.

  With :math:`I_k = \int_0^1 p^k e^{-u (1 - p)} dp`: :math:`I_k = (1 - k I_{k-1}) / u`, from
  :math:`I_0 = (1 - e^{-u}) / u` upwards; for small u that cancels, and the same recursion is run downwards
  from a series for the last.
  """
  small = jnp.abs(u) < 0.5
  near, far = jnp.where(small, u, 0), jnp.where(small, 1, u)
  last = jnp.ones_like(u)
  for i in range(12, 0, -1):
    last = 1 - near / (number + 1 + i) * last
  down = [last / (number + 1)]
  up = [-jnp.expm1(-far) / far]
  for k in range(number, 0, -1):
    down.insert(0, (1 - near * down[0]) / k)
  for k in range(1, number + 1):
    up.append((1 - k * up[-1]) / far)
  integrals = [jnp.where(small, low, high) for low, high in zip(down, up, strict=True)]
  return tuple(integral / integrals[0] for integral in integrals[1:])


def mean(now: jax.Array, value: jax.Array, history: History, first, second=0.0) -> jax.Array:
  """Mean of the polynomial through the predictions over a step that starts ``now``.

  Args:
    now: Lambda of the newest prediction, ``f32[1 or B, 1, ...]``.
    value: The newest prediction, ``f32[B, ...]``.
    history: At most two earlier ones; none gives ``value`` itself.
    first: Mean of ``lambda - now`` over the step.
    second: Mean of ``(lambda - now)^2``.

  Returns:
    ``f32[B, ...]``, in the dtype of ``value``.
  """
  if not history.value:
    return value
  gap_1 = gap(now, history.half_log_snr[0])
  change = value - history.value[0]
  if len(history.value) == 1:
    return value + (first / gap_1).astype(value.dtype) * change
  gap_2 = gap(history.half_log_snr[0], history.half_log_snr[1])
  bend = (first * gap_1 + second) / gap(now, history.half_log_snr[1])
  earlier = history.value[0] - history.value[1]
  return (
    value
    + ((first + bend) / gap_1).astype(value.dtype) * change
    - (bend / gap_2).astype(value.dtype) * earlier
  )
