"""The noise schedules that have a name, from betas, the variances that steps add, or from alpha_bar.

All raise ValueError if an argument is out of its range.
"""

import numpy as np

from ddim_jax.checks import check_numbers, check_T
from ddim_jax.schedules import Schedule, from_betas


def linear_schedule(T: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Schedule:
  """Betas rise linearly: the schedule of DDPM (arXiv:2006.11239) and of the DDIM paper.

  Args:
    T: Number of levels.
    beta_start: Beta at level 1, in (0, 1).
    beta_end: Beta at level T, in (0, 1].
  """
  check_numbers(beta_start=beta_start, beta_end=beta_end)
  return from_betas(np.linspace(beta_start, beta_end, check_T(T)))


def quadratic_schedule(T: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Schedule:
  """Square roots of the betas rise linearly: "quad" in the DDPM code, "scaled_linear" in diffusers."""
  check_numbers(beta_start=beta_start, beta_end=beta_end)
  if beta_start < 0 or beta_end < 0:
    raise ValueError(f"beta_start and beta_end must be in (0, 1), got {beta_start} and {beta_end}")
  return from_betas(np.linspace(beta_start**0.5, beta_end**0.5, check_T(T)) ** 2)


def constant_schedule(T: int = 1000, beta: float = 0.02) -> Schedule:
  """Every beta is the same: "const" in the DDPM code."""
  check_numbers(beta=beta)
  return from_betas(np.full(check_T(T), beta))


def sigmoid_schedule(T: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02) -> Schedule:
  """Betas follow a logistic curve over [-6, 6] from about ``beta_start`` to about ``beta_end``."""
  check_numbers(beta_start=beta_start, beta_end=beta_end)
  rise = 1 / (1 + np.exp(-np.linspace(-6, 6, check_T(T))))
  return from_betas(beta_start + (beta_end - beta_start) * rise)


def jsd_schedule(T: int = 1000) -> Schedule:
  """``beta_t = 1 / (T - t + 1)``, hence ``alpha_bar_t = 1 - t / T``: nothing is left at level T.

  From Sohl-Dickstein et al., arXiv:1503.03585; "jsd" in the DDPM code.
  """
  return from_betas(1 / np.arange(check_T(T), 0, -1))


def warmup_schedule(
  T: int = 1000, beta_start: float = 1e-4, beta_end: float = 0.02, fraction: float = 0.1
) -> Schedule:
  """Betas rise linearly over the first ``fraction`` of the levels and stay at ``beta_end``.

  "warmup10" and "warmup50" in the DDPM code are ``fraction`` 0.1 and 0.5; it is in [0, 1].
  """
  check_numbers(beta_start=beta_start, beta_end=beta_end, fraction=fraction)
  if not 0 <= fraction <= 1:
    raise ValueError(f"fraction must be in [0, 1], got {fraction}")
  betas = np.full(check_T(T), beta_end, np.float64)
  rising = int(T * fraction)
  betas[:rising] = np.linspace(beta_start, beta_end, rising)
  return from_betas(betas)


def cosine_schedule(T: int = 1000, offset: float = 0.008, max_beta: float = 0.999) -> Schedule:
  r"""``alpha_bar_t`` proportional to ``cos^2(pi/2 * (t/T + offset) / (1 + offset))``, betas capped.

  Equation (17) of Nichol and Dhariwal, arXiv:2102.09672; "squaredcos_cap_v2" in diffusers.

  Args:
    T: Number of levels.
    offset: Keeps the first betas away from 0; dimensionless, at least 0.
    max_beta: Cap on every beta, in (0, 1); it takes hold at the last levels.
  """
  check_numbers(offset=offset)
  if not 0 <= offset < np.inf:
    raise ValueError(f"offset must be at least 0 and finite, got {offset}")
  angle = np.linspace(0, 1, check_T(T) + 1) + offset
  return _from_signal(np.cos(angle / (1 + offset) * np.pi / 2) ** 2, max_beta)


def laplace_schedule(T: int = 1000, max_beta: float = 0.999) -> Schedule:
  """Log-SNRs follow a Laplace distribution: most levels lie where data and noise are equally strong.

  Hang et al., arXiv:2407.03297, as "laplace" in diffusers computes it: alpha_bar is the square root of
  what the formula gives, and all values are divided by the first.

  Args:
    T: Number of levels.
    max_beta: Cap on every beta, in (0, 1).
  """
  t = np.linspace(0, 1, check_T(T) + 1)
  log_snr = np.sign(t - 0.5) * 0.5 * np.log(1 - 2 * np.abs(0.5 - t) + 1e-6)
  return _from_signal((1 + np.exp(-log_snr)) ** -0.5, max_beta)


def exponential_schedule(T: int = 1000, rate: float = 12.0, max_beta: float = 0.999) -> Schedule:
  """``alpha_bar_t = exp(-rate * t / T)``, betas capped: "exp" in diffusers. ``rate`` is positive."""
  check_numbers(rate=rate)
  if not 0 < rate < np.inf:
    raise ValueError(f"rate must be positive and finite, got {rate}")
  return _from_signal(np.exp(-rate * np.linspace(0, 1, check_T(T) + 1)), max_beta)


def _from_signal(signal: np.ndarray, max_beta: float) -> Schedule:
  """Schedule with ``alpha_bar`` proportional to the ``T + 1`` values, betas capped."""
  check_numbers(max_beta=max_beta)
  if not 0 < max_beta < 1:
    raise ValueError(f"max_beta must be in (0, 1), got {max_beta}")
  return from_betas(np.minimum(1 - signal[1:] / signal[:-1], max_beta))
