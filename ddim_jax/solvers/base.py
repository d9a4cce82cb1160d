"""What every solver is made of.

Write ``lambda = log(alpha / sigma)``, half the log-SNR. Between two levels the deterministic process is
solved exactly by either of

    x_s = (sigma_s / sigma_t) x_t + alpha_s (1 - exp(-h)) * (mean of x0  over the step, weight exp(lambda))
    x_s = (alpha_s / alpha_t) x_t - sigma_s (exp(h) - 1)  * (mean of eps over the step, weight exp(-lambda))

with ``h = lambda_s - lambda_t``. DDIM takes the prediction at ``t`` for that mean; every other solver here
estimates the mean better, from several predictions, and then takes the DDIM step. So each is a rule for one
average, and at order 1 it is DDIM.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ddim_jax.denoisers import Denoiser
from ddim_jax.parameterisation import Prediction
from ddim_jax.schedules import LOG_SNR_LIMIT, Level, Schedule, coefficients, log_snr_at, wide

Stepped = tuple[jax.Array, Any, Prediction]
"""``(x_s, carry, prediction)``, see `SolverStep`."""


class SolverStep(Protocol):
  """One step of the reverse process."""

  def __call__(
    self, denoise: Denoiser, schedule: Schedule, carry: Any, x_t: jax.Array, t: Level, s: Level,
    z: jax.Array, /,
  ) -> Stepped:  # fmt: skip
    """From level ``t`` to level ``s``.

    Args:
      denoise: What predicts.
      schedule: Noise schedule.
      carry: The solver's memory, as the last step or ``init`` left it.
      x_t: Samples at level ``t``, ``f32[B, ...]``.
      t: Level left, ``i32[]`` or ``f32[]``. Traced.
      s: Level reached, likewise.
      z: Standard normal noise of the shape of ``x_t``; for a solver with several ``draws``, that many along
        a new first axis.

    Returns:
      ``(x_s, carry, prediction)``; the prediction is that at ``t``.
    """


class Solver(NamedTuple):
  """A rule for one step of the reverse process.

  Attributes:
    init: ``(x_T) -> carry``: the solver's memory before the first step, a pytree.
    step: ``(denoise, schedule, carry, x_t, t, s, z) -> (x_s, carry, prediction)``: see `SolverStep`.
    rises: Whether ``s`` may be above ``t``: see `ddim_jax.repaint`.
    draws: Number of independent draws of noise that a step takes.
    name: What it is called in messages and records; "" is nothing.
  """

  init: Callable[[jax.Array], Any]
  step: SolverStep
  rises: bool = False
  draws: int = 1
  name: str = ""


Limit = Callable[[ArrayLike, ArrayLike], jax.Array | int]
"""``(t, s) -> order``: the highest order of the step from level t to level s, at least 1. Traced."""


def lower_order_final(ts: ArrayLike) -> Limit:
  """A limit for multistep solvers: a step's order is at most the number of steps left, itself included.

  The usual remedy for few steps, where the last ones are long in lambda. The step to level 0 is of
  order 1 anyway. It helps where the levels end above 0. diffusers does it below 15 steps.

  Args:
    ts: The levels that `ddim_jax.sample` will get, ``[S+1]``, perhaps padded. Traced.
  """
  ts = jnp.asarray(ts).astype(jnp.float32)
  return lambda t, s: jnp.sum((ts[1:] < ts[:-1]) & (ts[1:] < jnp.asarray(t).astype(jnp.float32)))


def half_log_snr(schedule: Schedule, t: Level, like: jax.Array) -> jax.Array:
  """``lambda = log(alpha / sigma)`` at level ``t``, ``[1 or B, 1, ...]``, float32 or wider. Traced."""
  return (0.5 * log_snr_at(schedule, t, like)).astype(wide(like.dtype))


def is_clean(schedule: Schedule, t: Level, like: jax.Array) -> jax.Array:
  """Whether level ``t`` is free of noise, ``bool[1 or B, 1, ...]``. Traced."""
  return log_snr_at(schedule, t, like) >= LOG_SNR_LIMIT


def is_unbounded(schedule: Schedule, t: Level, s: Level, like: jax.Array) -> jax.Array:
  """Whether the step is infinitely long in lambda, ``bool[1 or B, 1, ...]``. Traced.

  That is a step to a clean level, or from one without signal (the table holds a limit in place of
  infinity). No polynomial in lambda says anything there, and no network is to be asked at a clean level:
  solvers take such a step at order 1, whatever the number of steps.
  """
  without_signal = log_snr_at(schedule, t, like) <= -LOG_SNR_LIMIT
  return is_clean(schedule, s, like) | without_signal


def with_mean_x0(prediction: Prediction, schedule: Schedule, t: Level, x0: jax.Array) -> Prediction:
  """The prediction for the same ``x_t`` with another x0; its eps follows. Unchanged if x0 is the same."""
  snr = jnp.exp(half_log_snr(schedule, t, x0))
  old, new = prediction.x0.astype(snr.dtype), x0.astype(snr.dtype)
  return Prediction(x0, (prediction.eps.astype(snr.dtype) - snr * (new - old)).astype(x0.dtype))


def with_mean_eps(prediction: Prediction, schedule: Schedule, t: Level, eps: jax.Array) -> Prediction:
  """The prediction for the same ``x_t`` with another eps; its x0 follows. Unchanged if eps is the same."""
  noise = jnp.exp(-half_log_snr(schedule, t, eps))
  old, new = prediction.eps.astype(noise.dtype), eps.astype(noise.dtype)
  return Prediction((prediction.x0.astype(noise.dtype) - noise * (new - old)).astype(eps.dtype), eps)


def moved(prediction: Prediction, schedule: Schedule, t: Level, shift: jax.Array) -> Prediction:
  """The prediction with the same x0 for ``x_t + shift``."""
  _, sigma = coefficients(schedule, t, shift)
  return Prediction(prediction.x0, prediction.eps + shift / sigma)


def where_to_ask(
  unbounded: jax.Array, start: tuple[jax.Array, ArrayLike], end: tuple[jax.Array, ArrayLike]
) -> tuple[jax.Array, jax.Array]:
  """The point for a second evaluation: ``end``, or where it is not wanted ``start``, which is harmless.

  Args:
    unbounded: Whether it is not wanted, from `is_unbounded`.
    start: ``(x, level)``.
    end: ``(x, level)``.
  """
  (x_t, t), (x_s, s) = start, end
  t, s = jnp.asarray(t), jnp.asarray(s)
  dtype = s.dtype if jnp.issubdtype(s.dtype, jnp.floating) else t.dtype
  level = jnp.where(unbounded.reshape(s.shape), t.astype(dtype), s.astype(dtype))
  return jnp.where(unbounded, x_t, x_s), level


def check_order(order: int, highest: int) -> None:
  """Raises ValueError unless ``order`` is an integer from 1 to ``highest``."""
  if isinstance(order, bool) or not isinstance(order, (int, np.integer)) or not 1 <= order <= highest:
    raise ValueError(f"order must be an integer from 1 to {highest}, got {order!r}")


def check_solver(solver: Any) -> None:
  """Raises ValueError unless it is a solver, such as where it is not yet made."""
  if not isinstance(solver, Solver):
    hint = "; call it, as in ddim_jax.ddim()" if callable(solver) else ""
    raise ValueError(  # noqa: TRY004
      f"solver must be a Solver, got {getattr(solver, '__name__', type(solver).__name__)}{hint}"
    )
