"""Noise schedules: how much signal is left at every noise level.

Level 0 is clean data and level T the noisiest. The forward process of [1] is, at every level t,

    x_t = alpha_t * x_0 + sigma_t * eps,   alpha_t = sqrt(alpha_bar_t),   sigma_t = sqrt(1 - alpha_bar_t)

A schedule is stored as log-SNR, ``log(alpha_bar / (1 - alpha_bar))``, because both coefficients come
from it without cancellation: in a float32 table of ``alpha_bar``, ``1 - alpha_bar`` at level 1 has a
relative error of 1.7e-4. Tables are computed in float64 on the host and cast once.

[1] Song, Meng, Ermon. Denoising Diffusion Implicit Models, arXiv:2010.02502. Its alpha is our alpha_bar.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ddim_jax.checks import check_floating, check_range, finite_vector

Level = ArrayLike
"""A noise level in [0, T], or one for each example: ``i32[]`` or ``i32[B]``, or real. Perhaps traced."""
LOG_SNR_LIMIT = 80.0
"""Stands for infinity in ``log_snr``: exp(80) and exp(-80) are still normal float32 numbers."""


class Schedule(NamedTuple):
  """Log signal-to-noise ratio at levels 0 (clean) to T (noisiest).

  A pytree of one array, meant to be traced: another schedule of the same T does not recompile.

  Attributes:
    log_snr: ``f32[T+1]`` (``f64`` when ``jax_enable_x64`` is on), decreasing, within +-80.
  """

  log_snr: jax.Array

  @property
  def T(self) -> int:
    """Number of noise levels above the clean one (static)."""
    return self.log_snr.shape[0] - 1

  @property
  def alpha_bar(self) -> jax.Array:
    """Fraction of the variance that is signal, ``f32[T+1]`` in [0, 1]."""
    return jax.nn.sigmoid(self.log_snr)

  @property
  def alpha(self) -> jax.Array:
    """Coefficient of the data, ``sqrt(alpha_bar)``, ``f32[T+1]``."""
    return _alpha(self.log_snr)

  @property
  def sigma(self) -> jax.Array:
    """Coefficient of the noise, ``sqrt(1 - alpha_bar)``, ``f32[T+1]``."""
    return _alpha(-self.log_snr)


def _alpha(log_snr: jax.Array) -> jax.Array:
  # exp(log_sigmoid / 2) rather than sqrt(sigmoid): its derivative is finite at both ends.
  return jnp.exp(0.5 * jax.nn.log_sigmoid(log_snr))


def check_schedule(schedule: Any) -> None:
  """Raises ValueError unless it is a Schedule, perhaps of traced numbers."""
  if not isinstance(schedule, Schedule):
    raise ValueError(f"schedule must be a Schedule, got {type(schedule).__name__}")  # noqa: TRY004


def check_arrays(schedule: Any, **arrays: Any) -> None:
  """Raises ValueError unless the first is a Schedule, and the others floating point of one shape."""
  check_schedule(schedule)
  for name, array in arrays.items():
    check_floating(name, array)
  if len({np.shape(array) for array in arrays.values()}) > 1:
    shapes = " and ".join(str(np.shape(array)) for array in arrays.values())
    raise ValueError(f"{' and '.join(arrays)} must have the same shape, got {shapes}")


def log_snr_at(schedule: Schedule, t: Level, like: jax.Array) -> jax.Array:
  """Log-SNR at level ``t``, shaped to combine with ``like``; in the schedule's own precision.

  Between two integer levels the log-SNR is linear: decreasing and invertible, as the table is (see
  `level_at`), and, since SNR is what a denoiser and a solver depend on, never outside what the two levels
  have. Published solvers interpolate the same way (k-diffusion; diffusers in Karras's spacing). Below
  level 1 the line rises to the limit that stands for infinity: no model knows such levels.

  Args:
    schedule: Noise schedule.
    t: Level, ``i32[]`` or ``f32[]``, or one per example, ``[B]``, in ``[0, T]``. A traced level outside the
      range gives NaN, so that it cannot pass for another level.
    like: Floating-point array ``[B, ...]`` whose rank the result takes.

  Returns:
    ``[1, 1, ...]`` or ``[B, 1, ...]``, in the dtype of the schedule.

  Raises:
    ValueError: If ``t`` is not a number, has another shape, or is not traced and out of range.
  """
  check_schedule(schedule)
  if not isinstance(t, jax.Array):
    t = np.asarray(t)
  if not (jnp.issubdtype(t.dtype, jnp.integer) or jnp.issubdtype(t.dtype, jnp.floating)):
    raise ValueError(f"level t must be an integer or floating point, got dtype {t.dtype}")
  if not jnp.issubdtype(like.dtype, jnp.floating):
    raise ValueError(f"x must be floating point, got dtype {like.dtype}")
  if t.ndim > 1 or (t.ndim == 1 and (like.ndim == 0 or t.shape[0] not in (1, like.shape[0]))):
    raise ValueError(f"level t must be a scalar or one per example, got t{t.shape} for x{like.shape}")
  check_range("level t", t, 0, schedule.T)
  if jnp.issubdtype(t.dtype, jnp.integer):
    value = schedule.log_snr.at[t].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
  else:
    value = _between_levels(schedule, jnp.asarray(t, schedule.log_snr.dtype))
  return jnp.reshape(value, t.shape + (1,) * (like.ndim - t.ndim))


def _between_levels(schedule: Schedule, t: jax.Array) -> jax.Array:
  lower = jnp.clip(jnp.floor(t), 0, schedule.T - 1)
  share, index = t - lower, lower.astype(jnp.int32)
  value = (1 - share) * schedule.log_snr[index] + share * schedule.log_snr[index + 1]
  return jnp.where((t >= 0) & (t <= schedule.T), value, jnp.nan)


def level_at(schedule: Schedule, log_snr: jax.Array) -> jax.Array:
  """The level with this log-SNR, the inverse of `log_snr_at`; ``[...]``, real, in ``[0, T]``. Traced.

  A log-SNR beyond the schedule's gives its first or last level.
  """
  table = schedule.log_snr
  return jnp.interp(-log_snr.astype(table.dtype), -table, jnp.arange(schedule.T + 1, dtype=table.dtype))


def coefficients(schedule: Schedule, t: Level, like: jax.Array) -> tuple[jax.Array, jax.Array]:
  """``(alpha_t, sigma_t)`` at level ``t``, to multiply ``like`` with, in its dtype. See `log_snr_at`."""
  log_snr = log_snr_at(schedule, t, like)
  return _alpha(log_snr).astype(like.dtype), _alpha(-log_snr).astype(like.dtype)


def wide(dtype: Any) -> Any:
  """``dtype``, or float32 if that is wider: what levels and predictions are computed in.

  Raises:
    ValueError: If it is not floating point.
  """
  if not jnp.issubdtype(dtype, jnp.floating):
    raise ValueError(f"samples must be floating point in data units, got {jnp.dtype(dtype)}")
  return dtype if jnp.finfo(dtype).bits >= 32 else jnp.float32


def safe_sqrt(x: jax.Array) -> jax.Array:
  """Square root with derivative 0 at 0 instead of infinity; NaN below 0, as ``jnp.sqrt``."""
  return jnp.where(x == 0, 0, jnp.sqrt(jnp.where(x == 0, 1, x)))


def fresh_noise(schedule: Schedule, t: Level, s: Level, like: jax.Array) -> jax.Array:
  """``sqrt(1 - SNR_t / SNR_s)``: the share of the noise at ``s`` that eta = 1 draws anew, in [0, 1].

  Times eta and sigma_s it is sigma_t(eta) of the paper, equation (16).
  """
  change = log_snr_at(schedule, t, like) - log_snr_at(schedule, s, like)
  return safe_sqrt(-jnp.expm1(jnp.minimum(change, 0))).astype(like.dtype)


def from_log_snr(log_snr: np.ndarray) -> Schedule:
  """Schedule from float64 log-SNR at levels 1..T, falling; may end at minus infinity."""
  return Schedule(jnp.asarray(np.append(LOG_SNR_LIMIT, np.clip(log_snr, -LOG_SNR_LIMIT, LOG_SNR_LIMIT))))


def _from_log_alpha_bar(log_alpha_bar: np.ndarray) -> Schedule:
  """A schedule from float64 ``log alpha_bar`` at levels 1..T; may end at minus infinity."""
  with np.errstate(divide="ignore"):
    return from_log_snr(log_alpha_bar - np.log(-np.expm1(log_alpha_bar)))


def from_betas(betas: ArrayLike) -> Schedule:
  """Schedule from the variances added at each step, ``alpha_bar_t = prod_i (1 - beta_i)``.

  Args:
    betas: ``[T]`` for levels 1..T, each in (0, 1); the last may be 1 (nothing is left of the data).

  Raises:
    ValueError: If ``betas`` is not a vector in that range.
  """
  betas = finite_vector("betas", betas)
  if betas.min() <= 0 or betas[-1] > 1 or np.any(betas[:-1] >= 1):
    raise ValueError(f"betas must be in (0, 1), the last at most 1; got {betas.min()} to {betas.max()}")
  with np.errstate(divide="ignore"):
    return _from_log_alpha_bar(np.cumsum(np.log1p(-betas)))


def from_alpha_bar(alpha_bar: ArrayLike) -> Schedule:
  """Schedule from ``alpha_bar`` itself.

  Args:
    alpha_bar: Strictly decreasing values in [0, 1) for levels 1..T. A first value of exactly 1 is
      taken as level 0, so that ``from_alpha_bar(schedule.alpha_bar)`` gives the schedule back.

  Raises:
    ValueError: If the values are not strictly decreasing or leave that range.
  """
  alpha_bar = finite_vector("alpha_bar", alpha_bar)
  if alpha_bar[0] == 1:
    alpha_bar = alpha_bar[1:]
  if not alpha_bar.size or alpha_bar[0] >= 1 or alpha_bar[-1] < 0 or np.any(np.diff(alpha_bar) >= 0):
    raise ValueError(
      "alpha_bar must decrease strictly from below 1 to at least 0,"
      f" got {np.array2string(alpha_bar, threshold=6)}"
    )
  with np.errstate(divide="ignore"):
    return _from_log_alpha_bar(np.log(alpha_bar))


def zero_terminal_snr(schedule: Schedule) -> Schedule:
  """Shifts and scales ``alpha`` so that level T has no signal and level 1 is unchanged.

  Algorithm 1 of Lin et al., arXiv:2305.08891. At level T an `EPS` network says nothing about x0:
  use another parameterisation with such a schedule.

  Args:
    schedule: A concrete (not traced) schedule with T of at least 2.

  Raises:
    ValueError: If T is 1, where levels 1 and T are the same.
  """
  if schedule.T < 2:
    raise ValueError("zero_terminal_snr needs a schedule with T of at least 2, got 1")
  log_snr = np.asarray(schedule.log_snr, np.float64)[1:]
  alpha = (1 + np.exp(-log_snr)) ** -0.5
  return from_alpha_bar(((alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])) ** 2)
