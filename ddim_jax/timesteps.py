"""Which noise levels a sampler visits.

A spacing returns a strictly decreasing numpy array of levels in ``[0, T]`` that ends at 0: S steps, from
``ts[0]`` down to clean data (`quadratic` may return fewer); `pad`, `cut` and `repaint` change such an array.
Most are ``i32[S+1]``; `log_snr` and `karras` lie between integers, ``f64[S+1]`` (single precision once on a
device, unless JAX's float64 is on). The same array, reversed, drives inversion. All are checked here, on the
host, and raise ValueError unless S is an integer from 1 to T; the sampler takes any such array, traced.

Published code numbers its levels 0..T-1; ours are one higher, since 0 is clean data.
"""

import numpy as np
from jax.typing import ArrayLike

from ddim_jax.checks import check_number, check_T, check_whole, positive_integer
from ddim_jax.schedules import LOG_SNR_LIMIT, Schedule, check_schedule


def _check(T: int, S: int) -> None:
  if check_T(T) < positive_integer("S", S):
    raise ValueError(f"S must be at most T: asked for {S} steps out of {T} levels")


def explicit(T: int, levels: ArrayLike) -> np.ndarray:
  """A user's own levels.

  Args:
    T: Number of levels of the schedule.
    levels: Strictly decreasing integers in ``[1, T]``; a 0 is appended where there is none.

  Raises:
    ValueError: If the levels are empty, not integers, out of range, or not strictly decreasing.
  """
  check_T(T)
  levels = np.asarray(levels)
  if levels.ndim != 1 or not levels.size or not np.issubdtype(levels.dtype, np.integer):
    raise ValueError(f"levels must be a non-empty vector of integers, got {levels!r}")
  if levels[-1] != 0:
    levels = np.append(levels, 0)
  if levels[0] > T or levels[-1] < 0 or levels.size < 2 or np.any(np.diff(levels) >= 0):
    raise ValueError(f"levels must decrease strictly from at most T = {T} to 0, got {levels.tolist()}")
  return levels.astype(np.int32)


def uniform(T: int, S: int) -> np.ndarray:
  """Levels ``floor(i * T / S) + 1``, i = 0..S-1: the paper's linear tau (appendix D.2).

  The same as the paper's code where S divides T, and exactly S steps everywhere else too.
  """
  _check(T, S)
  return explicit(T, (np.arange(S)[::-1] * T // S) + 1)


def quadratic(T: int, S: int) -> np.ndarray:
  """The paper's tau for CIFAR-10: denser near clean data, up to level 0.8 T.

  Rounding ``linspace(0, sqrt(0.8 T), S)**2`` down makes duplicates, steps that do nothing. They are left out,
  so that there may be fewer than S steps, as of no other spacing: for T = 1000, S = 10, 20, 50, 100, 1000
  give 10, 20, 49, 96, 688 steps.
  """
  _check(T, S)
  return explicit(T, np.unique((np.linspace(0, np.sqrt(0.8 * T), S) ** 2).astype(int))[::-1] + 1)


def leading(T: int, S: int, offset: int = 0) -> np.ndarray:
  """Levels ``i * (T // S) + 1 + offset``, i = 0..S-1: "leading" in diffusers with its steps_offset."""
  _check(T, S)
  check_whole("offset", offset, 0, T)
  return explicit(T, np.arange(S)[::-1] * (T // S) + 1 + offset)


def trailing(T: int, S: int) -> np.ndarray:
  """Levels ``round(T - i * T / S)``, i = 0..S-1: "trailing" in diffusers. Starts at level T."""
  _check(T, S)
  return explicit(T, np.round(T - np.arange(S) * (T / S)).astype(int))


def linspace(T: int, S: int) -> np.ndarray:
  """Rounded evenly spaced levels from T to 1, both included: "linspace" in diffusers (S = 1: level 1)."""
  _check(T, S)
  return explicit(T, np.round(np.linspace(0, T - 1, S)).astype(int)[::-1] + 1)


def _at_log_snr(schedule: Schedule, log_snr: np.ndarray) -> np.ndarray:
  """Real levels with these values of log-SNR, first and last exactly T and 1, and then level 0."""
  table = np.asarray(schedule.log_snr, np.float64)
  levels = np.interp(-np.asarray(log_snr), -table[1:], np.arange(1, table.size))
  levels[-1], levels[0] = 1, table.size - 1  # in this order: a single step starts at level T
  return np.append(levels, 0.0)


def _range(schedule: Schedule, S: int) -> tuple[float, float]:
  """Log-SNR at levels T and 1, checked; where nothing is left at level T, at T - 1 and 1."""
  check_schedule(schedule)
  table = np.asarray(schedule.log_snr, np.float64)
  T = len(table) - 1
  _check(T, S)
  infinite = T > 1 and table[T] <= -LOG_SNR_LIMIT
  return float(table[T - 1 if infinite else T]), float(table[1])


def log_snr(schedule: Schedule, S: int) -> np.ndarray:
  """Levels evenly spaced in log-SNR from level T to level 1, real numbers: ``f64[S+1]``.

  "Uniform lambda" of the DPM-Solver papers, where the higher-order solvers are at home; diffusers'
  ``use_lu_lambdas``, except that it rounds to integers.

  Args:
    schedule: A concrete (not traced) `ddim_jax.Schedule`. Where no signal is left at level T, the step from
      there leads to the first of the levels that are spaced from T - 1 on.
    S: Number of steps, from 1 to T.

  Raises:
    ValueError: If ``S`` is out of range.
  """
  first, last = _range(schedule, S)
  return _at_log_snr(schedule, np.linspace(first, last, S))


def karras(schedule: Schedule, S: int, rho: float = 7.0) -> np.ndarray:
  """Levels whose ``(sigma / alpha)^(1 / rho)`` is evenly spaced from level T to level 1: ``f64[S+1]``.

  Equation (5) of EDM, arXiv:2206.00364; diffusers' ``use_karras_sigmas``, except that most of its
  schedulers round to integers.

  Args:
    schedule: A concrete (not traced) `ddim_jax.Schedule`. Where no signal is left at level T, the step from
      there leads to the first of the levels that are spaced from T - 1 on.
    S: Number of steps, from 1 to T.
    rho: More makes the steps near the data shorter; positive.

  Raises:
    ValueError: If ``S`` is out of range or ``rho`` is not positive, or such that levels fall together.
  """
  check_number("rho", rho)
  if not 0 < rho < np.inf:
    raise ValueError(f"rho must be positive and finite, got {rho}")
  with np.errstate(all="ignore"):
    first, last = (np.exp(-0.5 / rho * end) for end in _range(schedule, S))
    levels = _at_log_snr(schedule, -2 * rho * np.log(np.linspace(first, last, S)))
  if not np.all(np.diff(levels) < 0):
    raise ValueError(f"rho must leave levels that can be told apart, got {rho}")
  return levels


def _several(ts: ArrayLike) -> np.ndarray:
  """Levels as an array; ValueError unless they are a vector of at least two."""
  found = np.asarray(ts)
  if found.ndim != 1 or len(found) < 2:
    raise ValueError(f"ts must be a vector of at least two levels, got shape {found.shape}")
  return found


def pad(ts: ArrayLike, length: int) -> tuple[np.ndarray, np.int32]:
  """Levels for ``ddim_jax.sample(..., ts, count=count)``: one compiled program for every number of steps.

  Args:
    ts: Levels of S steps, ``[S+1]``.
    length: Steps to make room for, at least S.

  Returns:
    ``(ts, count)``: ``[length+1]``, its last level repeated, and the number of steps S, ``i32[]``.

  Raises:
    ValueError: If ``ts`` does not fit.
  """
  ts = np.asarray(ts)
  check_whole("length", length, 0, np.inf)
  if ts.ndim != 1 or not 2 <= len(ts) <= length + 1:
    raise ValueError(f"ts must be a vector of 2 to {length + 1} levels for length {length}, got {ts.shape}")
  return np.pad(ts, (0, length + 1 - len(ts)), mode="edge"), np.int32(len(ts) - 1)


def cut(ts: ArrayLike, strength: float) -> np.ndarray:
  """The last part of a sequence, for image to image: ``floor(strength * S)`` of its S steps.

  `ddim_jax.add_noise` takes an image to the first level that is left, `ddim_jax.sample` back from there.

  Args:
    ts: Levels from a function of this module, ``i32[S+1]``.
    strength: How much of the chain, in (0, 1]: 1 is all of it, little keeps the image nearly as it is.

  Raises:
    ValueError: If ``strength`` is out of range, or so small that no step is left.
  """
  ts = _several(ts)
  check_number("strength", strength)
  S = len(ts) - 1
  # Rounded first, because 0.58 * 50 is a little less than 29 in floating point.
  steps = int(np.round(S * strength, 6)) if 0 < strength <= 1 else 0
  if steps < 1:
    raise ValueError(f"strength must be in (0, 1] and leave at least one of {S} steps, got {strength}")
  return ts[S - steps :]


def repaint(ts: ArrayLike, jump: int = 10, repeats: int = 10) -> np.ndarray:
  """Levels that go down in stretches of ``jump`` steps, each walked ``repeats`` times.

  RePaint's resampling, arXiv:2201.09865, for `ddim_jax.repaint`, the solver that can go up. After each
  stretch the levels jump back up to its beginning; the stretches are counted from the last noisy level.
  As in the paper, that is about ``repeats`` times as many network evaluations.

  Args:
    ts: Decreasing levels from another function of this module, ``i32[S+1]``.
    jump: Steps in a stretch, at least 1.
    repeats: How often each is walked, at least 1; 1 gives ``ts`` back.

  Returns:
    Levels, ``i32[N+1]``; not monotone. The last is ``ts[-1]``.

  Raises:
    ValueError: If ``jump`` or ``repeats`` is not a positive integer.
  """
  positive_integer("jump", jump)
  positive_integer("repeats", repeats)
  ts = _several(ts)
  last = len(ts) - 2
  levels = [ts[0]]
  for i in range(1, len(ts)):
    levels.append(ts[i])
    if jump <= i <= last and (last - i) % jump == 0:
      levels.extend(np.tile(ts[i - jump : i + 1], repeats - 1))
  return np.array(levels, ts.dtype)
