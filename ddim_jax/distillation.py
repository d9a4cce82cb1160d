r"""Distillation: a student that does in one DDIM step what its teacher does in several.

A DDIM step moves :math:`y = x / \sigma` along :math:`\rho = \alpha / \sigma`: :math:`y_s = y_t + (\rho_s -
\rho_t)\, \hat x_0`. Steps :math:`t = t_0 > t_1 > \dots > t_k = s` of the teacher with predictions
:math:`\hat x_0^{(i)}` therefore end where one step ends with their mean

.. math:: \tilde x_0 = \sum_i \frac{\rho_{t_{i+1}} - \rho_{t_i}}{\rho_s - \rho_t} \hat x_0^{(i)},

which is the target of progressive distillation in Salimans and Ho, arXiv:2202.00512, algorithm 2, without
its cancellation. One step (k = 1) teaches what the teacher predicts: how a student of v learns from a teacher
of eps.

In consistency distillation (Song et al., arXiv:2303.01469; with several steps, Heek et al., arXiv:2403.06807)
the teacher takes one of these steps and the student itself all that are left, from where the teacher got to:
two predictions and the same mean, however many steps the student is to save.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ddim_jax.checks import check_decreasing
from ddim_jax.denoisers import Denoiser
from ddim_jax.parameterisation import Parameterisation, Prediction, V
from ddim_jax.schedules import Schedule, coefficients, log_snr_at
from ddim_jax.solvers import ddim_step
from ddim_jax.training import Levels, Network, Weighting, noised


def target(denoise: Denoiser, schedule: Schedule, x_t: jax.Array, levels: Sequence[Any]) -> jax.Array:
  """The x0 with which one DDIM step leads where the teacher's steps do.

  Args:
    denoise: The teacher.
    schedule: Noise schedule.
    x_t: Samples at ``levels[0]``, ``f32[B, ...]``.
    levels: The levels that the teacher visits, at least two, each ``i32[]`` or ``i32[B]``, decreasing.

  Returns:
    ``f32[B, ...]``, in data units.
  """
  return _mean([denoise] * (len(levels) - 1), schedule, x_t, levels)


def _mean(
  denoisers: Sequence[Denoiser], schedule: Schedule, x_t: jax.Array, levels: Sequence[Any]
) -> jax.Array:
  """`target`, with a denoiser for each step."""
  ratio = lambda t: jnp.exp(log_snr_at(schedule, t, x_t) / 2)  # beyond what float16 holds
  whole = ratio(levels[-1]) - ratio(levels[0])
  x, total = x_t, jnp.zeros_like(x_t)
  for denoise, (t, s) in zip(denoisers, itertools.pairwise(levels), strict=True):
    prediction = denoise(x, t)
    total += ((ratio(s) - ratio(t)) / whole).astype(x_t.dtype) * prediction.x0
    x = ddim_step(schedule, prediction, t, s)
  return total


def truncated_snr() -> Weighting:
  """``max(SNR, 1)``: Salimans and Ho, arXiv:2202.00512, section 4; an SNR of zero still counts."""
  return lambda schedule, t, like: jnp.maximum(jnp.exp(log_snr_at(schedule, t, like)), 1)


def student_levels(ts: ArrayLike, every: int = 2) -> Levels:
  """Each example's level is uniform over those from which the student steps.

  Args:
    ts: The teacher's levels, ``i32[S+1]``, decreasing to 0.
    every: Teacher's steps in one of the student's.
  """
  own = jnp.asarray(np.asarray(ts)[:-1:every], jnp.int32)
  return lambda key, index: own[jax.random.randint(jax.random.fold_in(key, index), (), 0, len(own))]


def distillation_losses(
  network: Network,
  teacher: Callable[[Any], Denoiser],
  schedule: Schedule,
  ts: ArrayLike,
  *,
  every: int = 2,
  parameterisation: Parameterisation = V,
  weighting: Weighting | None = None,
) -> Callable[..., jax.Array]:
  """The loss of each example: the weighted squared error in x0, against `target`.

  Args:
    network: The student, see `ddim_jax.training.Network`.
    teacher: ``labels: i32[B] -> Denoiser``, or of whatever the network is given; no gradient flows into it.
    schedule: Noise schedule of both.
    ts: The teacher's levels, ``i32[S+1]``, decreasing strictly to 0; the student's are every second of them.
    every: Teacher's steps in one of the student's; a divisor of S.
    parameterisation: What the student predicts: `V`, `X0`, ... `EPS` says nothing about x0 where no signal is
      left, which the last halvings depend on.
    weighting: `truncated_snr` by default.

  Returns:
    ``(params, keys: [B], x0: f32[B, ...], labels: i32[B], t: i32[B]) -> f32[B]``, for
    `ddim_jax.training.make_train_step`; ``t`` from `student_levels`.

  Raises:
    ValueError: If the levels are not such, or ``every`` does not divide their steps.
  """
  visited = _pieces(schedule, ts, every)
  taken = lambda teacher, own: [teacher] * every
  return _losses(network, teacher, schedule, visited, taken, parameterisation, weighting)


def consistency_losses(
  network: Network,
  teacher: Callable[[Any], Denoiser],
  schedule: Schedule,
  ts: ArrayLike,
  *,
  every: int = 2,
  parameterisation: Parameterisation = V,
  weighting: Weighting | None = None,
) -> Callable[..., jax.Array]:
  """The same for consistency distillation: of the teacher's steps only the first is taken.

  The others are one step of the student from where that ended, with its parameters as they are (Song and
  Dhariwal, arXiv:2310.14189, leave out the averaged ones of the first paper). Arguments, result and errors
  are those of `distillation_losses`; but ``t`` is from all levels of the teacher, ``student_levels(ts, 1)``.
  """
  pieces = _pieces(schedule, ts, every)
  visited = np.concatenate([pieces[:, [i, i + 1, every]] for i in range(every)])
  taken = lambda teacher, own: [teacher, own]
  return _losses(network, teacher, schedule, visited, taken, parameterisation, weighting)


def _pieces(schedule: Schedule, ts: ArrayLike, every: int) -> np.ndarray:
  """The teacher's levels in each of the student's steps, ``i32[S / every, every + 1]``."""
  levels = np.asarray(ts)
  check_decreasing(levels, schedule.T)
  steps = levels.size - 1
  if not np.issubdtype(levels.dtype, np.integer) or levels[-1] != 0 or np.any(np.diff(levels) >= 0):
    raise ValueError(f"ts must be integers that decrease strictly to 0, got {levels.tolist()}")
  if every < 1 or steps % every:
    raise ValueError(f"every must divide the {steps} steps of ts, got {every}")
  return np.stack([levels[first : first + every + 1] for first in range(0, steps, every)])


def _losses(
  network: Network,
  teacher: Callable[[Any], Denoiser],
  schedule: Schedule,
  visited: np.ndarray,
  taken: Callable[[Denoiser, Denoiser], Sequence[Denoiser]],
  parameterisation: Parameterisation,
  weighting: Weighting | None,
) -> Callable[..., jax.Array]:
  """The weighted squared error in x0 against where steps ``taken(teacher, student)`` lead.

  ``visited`` are the levels of these steps, a row for each level to learn at, which is its first.
  """
  table = np.zeros((schedule.T + 1, visited.shape[1]), np.int32)
  table[visited[:, 0]] = visited
  weigh = truncated_snr() if weighting is None else weighting

  def losses(params: Any, keys: Any, x0: jax.Array, labels: Any, t: jax.Array) -> jax.Array:
    x_t, _, network_keys = noised(keys, schedule, x0, t)

    def predict(params: Any, x: jax.Array, t: jax.Array) -> Prediction:
      output = network(params, x, t, labels, network_keys).astype(x.dtype)
      return parameterisation.decode(output, x, *coefficients(schedule, t, x))

    steps = taken(teacher(labels), functools.partial(predict, jax.lax.stop_gradient(params)))
    wanted = jax.lax.stop_gradient(_mean(steps, schedule, x_t, list(jnp.asarray(table)[t].T)))
    errors = jnp.mean((predict(params, x_t, t).x0 - wanted) ** 2, axis=tuple(range(1, x0.ndim)))
    return jnp.reshape(weigh(schedule, t, x0).astype(x0.dtype), errors.shape) * errors

  return losses
