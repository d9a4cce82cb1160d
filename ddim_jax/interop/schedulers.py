"""A diffusers scheduler_config.json as schedule, parameterisation, levels, solver and clipping."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ddim_jax import timesteps
from ddim_jax.beta_schedules import cosine_schedule, linear_schedule, quadratic_schedule, sigmoid_schedule
from ddim_jax.denoisers import Denoiser, clip_x0, dynamic_threshold
from ddim_jax.parameterisation import EPS, X0, Parameterisation, V
from ddim_jax.schedules import Schedule, from_betas, zero_terminal_snr
from ddim_jax.solvers import Solver, ddim, ddpm

_SHARED = {
  "num_train_timesteps": 1000,
  "beta_start": 0.0001,
  "beta_end": 0.02,
  "beta_schedule": "linear",
  "trained_betas": None,
  "clip_sample": True,
  "steps_offset": 0,
  "prediction_type": "epsilon",
  "thresholding": False,
  "dynamic_thresholding_ratio": 0.995,
  "clip_sample_range": 1.0,
  "sample_max_value": 1.0,
  "timestep_spacing": "leading",
  "rescale_betas_zero_snr": False,
}
DEFAULTS: dict[str, dict[str, Any]] = {
  "DDIMScheduler": _SHARED | {"set_alpha_to_one": True},
  "DDPMScheduler": _SHARED | {"variance_type": "fixed_small"},
}
PREDICTIONS = {"epsilon": EPS, "sample": X0, "v_prediction": V}
_LARGE = {"fixed_small": False, "fixed_small_log": False, "fixed_large": True, "fixed_large_log": True}


class Sampling(NamedTuple):
  """What a scheduler's configuration means here; see `Pretrained` for the fields."""

  schedule: Schedule
  parameterisation: Parameterisation
  timesteps: Callable[[int], np.ndarray]
  solver: Solver
  restrict: Callable[[Denoiser, Schedule], Denoiser]
  config: dict[str, Any]


def choose(config: dict[str, Any], key: str, table: dict[Any, Any]) -> Any:
  """The entry of ``table`` that the configuration names.

  Raises:
    ValueError: If there is none; names the key, the value and what is allowed.
  """
  if config[key] not in table:
    raise ValueError(f"{key} must be one of {', '.join(map(repr, table))}, got {config[key]!r}")
  return table[config[key]]


def complete(config: dict[str, Any], defaults: dict[str, Any], kind: str) -> dict[str, Any]:
  """The configuration with defaults for absent keys; keys that begin with "_" say nothing of the function.

  Raises:
    ValueError: If a key is unknown.
  """
  if unknown := sorted(key for key in config if not key.startswith("_") and key not in defaults):
    raise ValueError(f"unknown keys in the configuration of a {kind}: {', '.join(unknown)}")
  return defaults | config


def _schedule(config: dict[str, Any]) -> Schedule:
  T, ends = config["num_train_timesteps"], (config["beta_start"], config["beta_end"])
  if config["trained_betas"] is not None:
    schedule = from_betas(config["trained_betas"])
    if T != schedule.T:
      raise ValueError(f"num_train_timesteps is {T}, but trained_betas has {schedule.T} values")
  else:
    tables: dict[str, Callable[[], Schedule]] = {
      "linear": lambda: linear_schedule(T, *ends),
      "scaled_linear": lambda: quadratic_schedule(T, *ends),
      "squaredcos_cap_v2": lambda: cosine_schedule(T),
    }
    if config["_class_name"] == "DDPMScheduler":
      tables["sigmoid"] = lambda: sigmoid_schedule(T, *ends)
    schedule = choose(config, "beta_schedule", tables)()
  return zero_terminal_snr(schedule) if config["rescale_betas_zero_snr"] else schedule


def _levels(config: dict[str, Any], T: int) -> Callable[[int], np.ndarray]:
  spacings: dict[str, Callable[[int], np.ndarray]] = {
    "leading": lambda S: timesteps.leading(T, S, config["steps_offset"]),
    "trailing": lambda S: timesteps.trailing(T, S),
    "linspace": lambda S: timesteps.linspace(T, S),
  }
  levels = choose(config, "timestep_spacing", spacings)
  if config.get("set_alpha_to_one", True):
    return levels
  return lambda S: np.maximum(levels(S), 1)


def _restriction(config: dict[str, Any]) -> Callable[[Denoiser, Schedule], Denoiser]:
  if config["thresholding"]:
    quantile, maximum = config["dynamic_thresholding_ratio"], config["sample_max_value"]
    return lambda denoise, schedule: dynamic_threshold(denoise, schedule, quantile, maximum)
  if config["clip_sample"]:
    bound = config["clip_sample_range"]
    return lambda denoise, schedule: clip_x0(denoise, schedule, -bound, bound)
  return lambda denoise, schedule: denoise


def from_scheduler(config: dict[str, Any]) -> Sampling:
  """Reads the configuration of a DDIMScheduler or DDPMScheduler.

  ``variance_type`` "fixed_small_log" is "fixed_small"; "fixed_large_log", whose step is NaN in diffusers,
  is "fixed_large". The last step to clean data adds no noise.

  Raises:
    ValueError: If it is another scheduler's, a key is unknown, or a value is not supported.
  """
  defaults = choose({"_class_name": config.get("_class_name")}, "_class_name", DEFAULTS)
  config = complete(config, defaults, config["_class_name"])
  schedule = _schedule(config)
  solver = ddim()
  if config["_class_name"] == "DDPMScheduler":
    solver = ddpm("large" if choose(config, "variance_type", _LARGE) else "small")
  return Sampling(
    schedule=schedule,
    parameterisation=choose(config, "prediction_type", PREDICTIONS),
    timesteps=_levels(config, schedule.T),
    solver=solver,
    restrict=_restriction(config),
    config=config,
  )
