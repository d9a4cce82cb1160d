"""The levels that a diffusers scheduler visits: its timesteps, or its sigmas, as levels of a schedule.

Their timestep i is our level i + 1. Their sigma is the noise divided by the data's coefficient, for flow
matching the share u of the noise.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from ddim_jax import timesteps
from ddim_jax.interop.scheduler_defaults import choose, refuse
from ddim_jax.paths import shifted
from ddim_jax.schedules import Schedule

STAYS = ("DEISMultistepScheduler", "UniPCMultistepScheduler", "SASolverScheduler")
"""Classes whose last sigma, where it is not 0, is the one before once more."""
Spacing = Callable[[int], np.ndarray]
"""``S -> levels``, ``[S+1]``, integer or real."""
ONLY_ONE = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas")


def log_ratios(schedule: Schedule) -> np.ndarray:
  """``log(sigma / alpha)`` at levels 1..T, rising."""
  return -np.asarray(schedule.log_snr, np.float64)[1:] / 2


def to_levels(schedule: Schedule, sigmas: np.ndarray) -> np.ndarray:
  """Levels with these ratios ``sigma / alpha``; 0 is level 0. ``[S+1]``.

  Raises:
    ValueError: If one lies outside the schedule.
  """
  table = log_ratios(schedule)
  with np.errstate(divide="ignore"):
    wanted = np.log(sigmas)
  beyond = (wanted[sigmas > 0] < table[0] - 1e-6) | (wanted[sigmas > 0] > table[-1] + 1e-6)
  if np.any(beyond):
    raise ValueError(
      f"sigma_min and sigma_max must lie within the schedule's {np.exp(table[0]):.4g} to"
      f" {np.exp(table[-1]):.4g}, got sigmas from {sigmas[sigmas > 0].min():.4g} to {sigmas.max():.4g}"
    )
  levels = np.interp(wanted, table, np.arange(1, table.size + 1))
  whole = np.round(levels)
  levels = np.where(np.abs(levels - whole) < 1e-6, whole, levels)  # rounding of the logarithms
  return np.where(sigmas > 0, levels, 0.0)


def _karras(first: float, last: float, S: int, rho: float = 7.0) -> np.ndarray:
  """S sigmas whose roots of order rho are evenly spaced."""
  ends = first ** (1 / rho), last ** (1 / rho)
  found: np.ndarray = (ends[0] + np.linspace(0, 1, S) * (ends[1] - ends[0])) ** rho
  return found


def _exponential(first: float, last: float, S: int) -> np.ndarray:
  """S sigmas whose logarithms are evenly spaced."""
  found: np.ndarray = np.exp(np.log(first) + np.linspace(0, 1, S) * (np.log(last) - np.log(first)))
  return found


def _ramp(config: dict[str, Any], first: float, last: float, S: int) -> np.ndarray | None:
  """The S sigmas from ``first`` to ``last`` of the option that is on; None if none is."""
  chosen = [key for key in ONLY_ONE if config.get(key)]
  if len(chosen) > 1:
    raise ValueError(f"only one of {', '.join(chosen)} can be on")
  found: np.ndarray | None = None
  match chosen:
    case ["use_karras_sigmas"]:
      found = _karras(first, last, S)
    case ["use_exponential_sigmas"] | ["use_lu_lambdas"]:
      found = _exponential(first, last, S)
    case ["use_beta_sigmas"]:
      import scipy.stats

      found = last + scipy.stats.beta.ppf(1 - np.linspace(0, 1, S), 0.6, 0.6) * (first - last)
  return found


def plain(config: dict[str, Any], T: int) -> Spacing:
  """Whole levels of DDIM, DDPM and PNDM; without ``set_alpha_to_one`` they end at level 1."""
  spacings: dict[str, Spacing] = {
    "leading": lambda S: timesteps.leading(T, S, config["steps_offset"]),
    "trailing": lambda S: timesteps.trailing(T, S),
    "linspace": lambda S: timesteps.linspace(T, S),
  }
  levels = choose(config, "timestep_spacing", spacings)
  if config.get("set_alpha_to_one", True):
    found: Spacing = levels
    return found
  return lambda S: np.maximum(levels(S), 1)


def of_sigmas(config: dict[str, Any], schedule: Schedule) -> Spacing:
  """Levels of the schedulers of k-diffusion: Euler, Heun, LMS, KDPM2 and their ancestral forms.

  "linspace" has real timesteps here, whose sigma is linear between whole ones.
  """
  T, offset, table = schedule.T, config["steps_offset"], np.exp(log_ratios(schedule))
  spacings: dict[str, Spacing] = {
    "leading": lambda S: timesteps.leading(T, S, offset)[:-1],
    "trailing": lambda S: timesteps.trailing(T, S)[:-1],
    "linspace": lambda S: np.linspace(T, 1, S) if S > 1 else np.ones(1),
  }
  levels = choose(config, "timestep_spacing", spacings)
  end = _last(config, "zero")
  whole_range = choose(
    {"interpolation_type": "linear"} | config, "interpolation_type", {"linear": False, "log_linear": True}
  )
  if whole_range and not any(config.get(key) for key in ONLY_ONE):
    refuse(config, {"interpolation_type": "its sigmas are not those of its timesteps"})

  def spaced(S: int) -> np.ndarray:
    at = levels(S)
    sigmas = np.interp(at, np.arange(1, T + 1), table)
    ends = table[[-1, 0]] if whole_range else sigmas[[0, -1]]  # with "log_linear" whatever levels say
    first, last = config.get("sigma_max") or ends[0], config.get("sigma_min") or ends[1]
    ramp = _ramp(config, first, last, S)
    if ramp is None and np.issubdtype(at.dtype, np.integer):
      return np.append(at, end).astype(np.int32)
    return np.append(to_levels(schedule, sigmas if ramp is None else ramp), float(end))

  return spaced


def _last(config: Any, default: str) -> int:
  """The level at which the sequence ends, 0 or 1."""
  found: int = choose(
    {"final_sigmas_type": default} | config, "final_sigmas_type", {"zero": 0, "sigma_min": 1}
  )
  return found


def of_multistep(config: dict[str, Any], schedule: Schedule) -> Spacing:
  """Levels of DPM-Solver, UniPC, SA-Solver and DEIS: whole, or between whole ones where an option says so.

  DEIS and SA-Solver end at the lowest sigma, as "sigma_min" says; a last step that goes nowhere is theirs.
  """
  T, offset = schedule.T, config.get("steps_offset", 0)
  kind, table = config["_class_name"], np.exp(log_ratios(schedule))
  # Levels whose lambda is below a limit are left out.
  last = T - int(np.sum(-log_ratios(schedule) < config.get("lambda_min_clipped", -np.inf)))
  spacings: dict[str, Spacing] = {
    "linspace": lambda S: np.round(np.linspace(0, last - 1, S + 1))[:0:-1] + 1,
    "leading": lambda S: np.arange(S, 0, -1) * (last // (S + 1)) + 1 + offset,
    "trailing": lambda S: np.round(np.arange(last, 1e-9, -T / S)),
  }
  levels = choose({"timestep_spacing": "linspace"} | config, "timestep_spacing", spacings)
  to_zero = _last(config, "sigma_min") == 0
  stays = kind in STAYS

  def spaced(S: int) -> np.ndarray:
    first, lowest = config.get("sigma_max") or table[-1], config.get("sigma_min") or table[0]
    ramp = _ramp(config, first, lowest, S)
    if ramp is None:
      whole = timesteps.explicit(T, levels(S).astype(int))
      return whole if to_zero else np.maximum(whole, 1)
    final = 0.0 if to_zero else (ramp[-1] if stays else table[0])
    return to_levels(schedule, np.append(ramp, final))

  return spaced


def of_flow_sigmas(config: dict[str, Any], schedule: Schedule, lowest: float) -> Spacing:
  """Levels of a multistep scheduler with ``use_flow_sigmas``.

  Args:
    config: Of the scheduler.
    schedule: `ddim_jax.flow_schedule`.
    lowest: The sigma that "sigma_min" means for DPM-Solver, taken from its betas.
  """
  T, shift, kind = schedule.T, config["flow_shift"], config["_class_name"]
  refuse(config, {"use_dynamic_shifting": "the shift would depend on a number that the caller gives"})
  to_zero = _last(config, "sigma_min") == 0

  def spaced(S: int) -> np.ndarray:
    if kind == "UniPCMultistepScheduler":
      u = shifted(np.linspace(1, 1 / T, S + 1)[:-1], shift)
      if config["shift_terminal"]:
        u = stretched(u, config["shift_terminal"])
      u[0] = min(u[0], 1 - 1e-6)
    else:
      u = shifted(1 - np.linspace(1, 1 / T, S + 1), shift)[:0:-1]
    stays = kind in STAYS
    u = np.append(u, 0.0 if to_zero else (u[-1] if stays else lowest))
    return to_levels(schedule, u / (1 - u))

  return spaced


def stretched(u: np.ndarray, end: float) -> np.ndarray:
  """Shares of noise stretched so that the last is ``end``."""
  found: np.ndarray = 1 - (1 - u) / ((1 - u[-1]) / (1 - end))
  return found


def of_flow_matching(config: dict[str, Any], schedule: Schedule) -> Spacing:
  """Levels of a FlowMatchEulerDiscreteScheduler; it applies ``shift`` to range and values."""
  T, shift = schedule.T, config["shift"]

  def spaced(S: int) -> np.ndarray:
    u = shifted(np.linspace(1, shifted(1 / T, shift), S), shift)
    if config["shift_terminal"]:
      u = stretched(u, config["shift_terminal"])
    ramp = _ramp(config, u[0], u[-1], S)
    u = np.append(u if ramp is None else ramp, 0.0)
    with np.errstate(divide="ignore"):
      ratio = u / (1 - u)
    return to_levels(schedule, np.minimum(ratio, np.exp(log_ratios(schedule)[-1])))

  return spaced


def of_edm(config: dict[str, Any], schedule: Schedule) -> Spacing:
  """Levels of an EDMEulerScheduler or EDMDPMSolverMultistepScheduler."""
  low, high, rho = config["sigma_min"], config["sigma_max"], config["rho"]
  ramps: dict[str, Spacing] = {
    "karras": lambda S: _karras(high, low, S, rho),
    "exponential": lambda S: _exponential(high, low, S),
  }
  ramp = choose(config, "sigma_schedule", ramps)
  end = choose(config, "final_sigmas_type", {"zero": 0.0, "sigma_min": low})
  return lambda S: to_levels(schedule, np.append(ramp(S), end))
