r"""Schedules of other coordinates, and the inputs of networks that were trained in them.

Published models write their noisy data as :math:`a x_0 + s \epsilon` with any two coefficients:

    variance preserving      a = alpha         s = sigma, alpha^2 + sigma^2 = 1      DDPM, DDIM, this package
    variance exploding, EDM  a = 1             s from 0.002 to 80                    arXiv:2206.00364
    rectified flow           a = 1 - u         s = u, u from 0 to 1                  arXiv:2209.03003

All are one family: only the ratio s / a matters, and dividing by :math:`\sqrt{a^2 + s^2}` leads to the first.
So a path is a `Schedule`, every solver applies to it, and what remains is how a network wants to be asked:
`edm_input` and `flow_input`. A network trained here needs neither.

DDIM in these coordinates is what others call Euler's rule: for EDM in s, for rectified flow in u.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ddim_jax.checks import check_numbers, check_positive, check_T, finite_vector
from ddim_jax.schedules import Level, Schedule, coefficients, from_log_snr, log_snr_at


def from_alpha_sigma(alpha: ArrayLike, sigma: ArrayLike) -> Schedule:
  """Schedule of a path ``alpha * x0 + sigma * eps``, whatever ``alpha^2 + sigma^2`` is.

  Args:
    alpha: Coefficients of the data at levels 1..T, ``[T]`` or a scalar; at least 0.
    sigma: Coefficients of the noise, likewise. A first pair whose ``sigma`` is 0 is taken as level 0.

  Returns:
    The schedule whose samples are those of the path divided by ``sqrt(alpha^2 + sigma^2)``.

  Raises:
    ValueError: If a value is negative, both are 0, or ``sigma / alpha`` does not rise strictly.
  """
  alpha, sigma = np.atleast_1d(*np.broadcast_arrays(alpha, sigma))
  alpha, sigma = finite_vector("alpha", alpha), finite_vector("sigma", sigma)
  if alpha.min() < 0 or sigma.min() < 0 or np.any(alpha + sigma == 0):
    raise ValueError(f"alpha and sigma must be at least 0 and not both 0, got {alpha} and {sigma}")
  if sigma[0] == 0:
    alpha, sigma = alpha[1:], sigma[1:]
  with np.errstate(divide="ignore"):
    log_snr = 2 * (np.log(alpha) - np.log(sigma))
  if not log_snr.size or log_snr[0] == np.inf or np.any(np.diff(log_snr) >= 0):
    raise ValueError("sigma / alpha must be positive from level 1 on and rise strictly")
  return from_log_snr(log_snr)


def edm_schedule(
  T: int = 1000, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0
) -> Schedule:
  """EDM's noise: ``sigma / alpha`` from ``sigma_min`` at level 1 to ``sigma_max`` at level T.

  ``(sigma / alpha)^(1 / rho)`` is even in the level, equation (5) of arXiv:2206.00364. Real levels lie
  between, so that T limits nothing. Levels of training: `ddim_jax.continuous.log_normal_levels`.

  Args:
    T: Number of levels.
    sigma_min: In units of the data, positive.
    sigma_max: Above ``sigma_min``.
    rho: Positive; more makes levels denser near clean data.

  Raises:
    ValueError: If an argument is out of range.
  """
  check_numbers(sigma_min=sigma_min, sigma_max=sigma_max, rho=rho)
  if not 0 < sigma_min < sigma_max < np.inf or not 0 < rho < np.inf:
    raise ValueError(
      f"sigma_min, sigma_max and rho must be positive and rising, got {sigma_min}, {sigma_max} and {rho}"
    )
  with np.errstate(all="ignore"):
    first, last = np.array([sigma_min, sigma_max]) ** (1 / rho)
    sigma = np.linspace(first, last, check_T(T)) ** rho
  if not np.all(np.isfinite(sigma)) or np.any(np.diff(sigma) <= 0):
    raise ValueError(f"rho must leave levels that can be told apart, got {rho}")
  return from_alpha_sigma(1.0, sigma)


def shifted(u: Any, shift: float) -> Any:
  """Shares of noise in [0, 1], larger by a ``shift`` above 1: arXiv:2403.03206 does so for large images."""
  return shift * u / (1 + (shift - 1) * u)


def flow_schedule(T: int = 1000, shift: float = 1.0) -> Schedule:
  """Rectified flow: at level t the share of the noise is ``u = t / T``, of the data ``1 - u``.

  Nothing is left of the data at level T.

  Args:
    T: Number of levels.
    shift: Positive; more than 1 moves levels towards noise, see `shifted`.

  Raises:
    ValueError: If an argument is out of range.
  """
  check_numbers(shift=shift)
  if not 0 < shift < np.inf:
    raise ValueError(f"shift must be positive and finite, got {shift}")
  u = shifted(np.arange(1, check_T(T) + 1) / T, shift)
  return from_alpha_sigma(1 - u, u)


def edm_input(
  schedule: Schedule, x_t: jax.Array, t: Level, sigma_data: float = 0.5
) -> tuple[jax.Array, jax.Array]:
  r"""What a network of EDM is given: :math:`c_\text{in} x` and :math:`c_\text{noise} = \log(s) / 4`.

  For use inside a network: ``as_denoiser(lambda x, t: F(*edm_input(schedule, x, t)), schedule, EDM)``.

  Args:
    schedule: Noise schedule, such as `edm_schedule`. Traced.
    x_t: Sample in the coordinates of this package, ``f32[B, ...]``.
    t: Level, in [1, T], ``[]`` or ``[B]``. Traced.
    sigma_data: Standard deviation of the data, as in `ddim_jax.edm`.

  Returns:
    The input, of unit variance, in the dtype of ``x_t``; and the level of noise, of the shape of ``t``, in
    the dtype of the schedule.

  Raises:
    ValueError: If ``sigma_data`` is not positive.
  """
  check_positive("sigma_data", sigma_data)
  alpha, sigma = coefficients(schedule, t, x_t)
  deviation = jnp.sqrt((alpha * jnp.asarray(sigma_data, x_t.dtype)) ** 2 + sigma**2)
  return x_t / deviation, jnp.reshape(-log_snr_at(schedule, t, x_t) / 8, jnp.shape(t))


def flow_input(schedule: Schedule, x_t: jax.Array, t: Level) -> tuple[jax.Array, jax.Array]:
  """What a network of rectified flow is given: ``(1 - u) x0 + u eps``, and u in [0, 1].

  Args:
    schedule: Noise schedule, such as `flow_schedule`. Traced.
    x_t: Sample in the coordinates of this package, ``f32[B, ...]``.
    t: Level, in [0, T], ``[]`` or ``[B]``. Traced.

  Returns:
    The input, in the dtype of ``x_t``; and u, of the shape of ``t``, in the dtype of the schedule.
  """
  alpha, sigma = coefficients(schedule, t, x_t)
  u = jax.nn.sigmoid(-log_snr_at(schedule, t, x_t) / 2)  # sigma / (alpha + sigma)
  return x_t / (alpha + sigma), jnp.reshape(u, jnp.shape(t))
