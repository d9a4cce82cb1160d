"""Which noise levels a sampler visits.

Every function returns a strictly decreasing ``i32[S+1]`` numpy array of levels in ``[0, T]`` that ends
at 0: S steps, from ``ts[0]`` down to clean data. The same array, reversed, drives inversion. All are
checked here, on the host; the sampler takes any such array, traced.

Published code numbers its levels 0..T-1; ours are one higher, since 0 is clean data.
"""

import numpy as np


def _check(T: int, S: int) -> None:
  for name, value in (("T", T), ("S", S)):
    if not isinstance(value, (int, np.integer)) or value < 1:
      raise ValueError(f"{name} must be a positive integer, got {value!r}")
  if S > T:
    raise ValueError(f"S must be at most T: asked for {S} steps out of {T} levels")


def explicit(T: int, levels) -> np.ndarray:
  """A user's own levels.

  Args:
    T: Number of levels of the schedule.
    levels: Strictly decreasing integers in ``[1, T]``; a 0 is appended where there is none.

  Raises:
    ValueError: If the levels are empty, not integers, out of range, or not strictly decreasing.
  """
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

  Rounding ``linspace(0, sqrt(0.8 T), S)**2`` down makes duplicates, steps that do nothing. Here, alone
  in this module, the distinct levels are returned, so there may be fewer than S: for T = 1000,
  S = 10, 20, 50, 100, 1000 give 10, 20, 49, 96, 688 steps.
  """
  _check(T, S)
  return explicit(T, np.unique((np.linspace(0, np.sqrt(0.8 * T), S) ** 2).astype(int))[::-1] + 1)


def leading(T: int, S: int, offset: int = 0) -> np.ndarray:
  """Levels ``i * (T // S) + 1 + offset``, i = 0..S-1: "leading" in diffusers with its steps_offset."""
  _check(T, S)
  return explicit(T, np.arange(S)[::-1] * (T // S) + 1 + offset)


def trailing(T: int, S: int) -> np.ndarray:
  """Levels ``round(T - i * T / S)``, i = 0..S-1: "trailing" in diffusers. Starts at level T."""
  _check(T, S)
  return explicit(T, np.round(T - np.arange(S) * (T / S)).astype(int))


def linspace(T: int, S: int) -> np.ndarray:
  """Rounded evenly spaced levels from T to 1, both included: "linspace" in diffusers (S = 1: level 1)."""
  _check(T, S)
  return explicit(T, np.round(np.linspace(0, T - 1, S)).astype(int)[::-1] + 1)
