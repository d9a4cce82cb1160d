"""Averages over a step from predictions at earlier steps: what the multistep solvers share.

Predictions at ``lambda_0`` (now), ``lambda_1``, ``lambda_2`` (earlier) define a polynomial in lambda, and
the mean over the coming step is that polynomial's, under an exponential weight. All is in Newton's form, so
that a missing prediction is one infinitely far away, whose terms vanish: the order rises by itself, and
falls when predictions are forgotten (`limited`).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ddim_jax.schedules import wide

_ABSENT = 1e18  # far beyond any lambda; its square is still a float32


class History(NamedTuple):
  """Predictions at the latest levels, the newest first.

  Attributes:
    at: Where they were made: lambda, or what else rises during sampling; each ``f32[B, 1, ...]``.
    value: The predictions, each ``f32[B, ...]``.
  """

  at: tuple[jax.Array, ...]
  value: tuple[jax.Array, ...]


def empty(x: jax.Array, size: int) -> History:
  """A history of ``size`` predictions that are yet to come; ``x`` gives shape and dtype."""
  shape, dtype = x.shape[:1] + (1,) * (x.ndim - 1), wide(x.dtype)
  nowhere = tuple(jnp.full(shape, -_ABSENT * (i + 1), dtype) for i in range(size))
  return History(nowhere, (jnp.zeros_like(x),) * size)


def push(history: History, now: jax.Array, value: jax.Array) -> History:
  """The history after a prediction made ``now``; the oldest is dropped."""
  if not history.value:
    return history
  now = jnp.broadcast_to(now, history.at[0].shape)
  return History((now, *history.at[:-1]), (value, *history.value[:-1]))


def limited(history: History, order: Any) -> History:
  """The history for a step of at most this order, ``i32[]``: all but ``order - 1`` predictions forgotten."""
  at = (jnp.where(i < order - 1, at, -_ABSENT * (i + 1)) for i, at in enumerate(history.at))
  return History(tuple(at), history.value)


def present(history: History, i: int) -> jax.Array:
  """Whether there is a prediction number ``i``, ``bool[B, 1, ...]``."""
  return history.at[i] > -_ABSENT / 2


def gap(later: jax.Array, earlier: jax.Array) -> jax.Array:
  """``later - earlier``; a level visited twice in a row counts as infinitely far."""
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


def mean(now: jax.Array, value: jax.Array, history: History, *moments: Any) -> jax.Array:
  r"""Mean of the polynomial through the predictions over a step that starts ``now``.

  Newton's form: with :math:`d_j = p_0 - p_j` and :math:`M_m` the mean of
  :math:`\prod_{j < m} (p - p_j) / d_{j+1}`, prediction i has the weight
  :math:`-\sum_{m \ge i} M_m \prod_{1 \le j \le m, j \ne i} d_j / (p_i - p_j)`; no factor overflows.

  Args:
    now: Where the newest prediction was made, ``f32[1 or B, 1, ...]``.
    value: The newest prediction, ``f32[B, ...]``.
    history: Earlier ones; none gives ``value`` itself.
    moments: Means of ``p - now`` and its powers over the step, at least as many as earlier predictions.

  Returns:
    ``f32[B, ...]``, in the dtype of ``value``.
  """
  at, number = (now, *history.at), len(history.at)
  distance = [gap(now, node) for node in at]
  basis, means = [jnp.ones_like(now)], []  # basis: coefficients of (p - now)^k
  for m in range(1, number + 1):
    offset, scale = (now - at[m - 1]) / distance[m], 1 / distance[m]
    zero = jnp.zeros_like(now)
    shifted, level = [zero, *basis], [*basis, zero]
    basis = [scale * low + offset * high for low, high in zip(shifted, level, strict=True)]
    means.append(sum(b * moment for b, moment in zip(basis[1:], moments, strict=False)))
  result = value
  for i in range(1, number + 1):
    weight = jnp.zeros_like(now)
    for m in range(i, number + 1):
      term = -means[m - 1]
      for j in range(1, m + 1):
        if j != i:
          term = term * distance[j] / (gap(at[i], at[j]) if j > i else -gap(at[j], at[i]))
      weight += term
    result += weight.astype(value.dtype) * (history.value[i - 1] - value)
  return result
