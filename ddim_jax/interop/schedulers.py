"""A diffusers scheduler_config.json as schedule, parameterisation, levels, solver, clipping and input."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddim_jax.beta_schedules import (
  cosine_schedule,
  exponential_schedule,
  laplace_schedule,
  linear_schedule,
  quadratic_schedule,
  sigmoid_schedule,
)
from ddim_jax.denoisers import Denoiser, clip_x0, dynamic_threshold
from ddim_jax.interop import spacings
from ddim_jax.interop.scheduler_defaults import DEFAULTS, ELSEWHERE, choose, complete, refuse
from ddim_jax.interop.scheduler_solvers import solver_of
from ddim_jax.parameterisation import EPS, FLOW, X0, Parameterisation, V, edm
from ddim_jax.paths import edm_input, edm_schedule, flow_input, flow_schedule, from_alpha_sigma
from ddim_jax.schedules import Level, Schedule, from_alpha_bar, from_betas, log_snr_at, zero_terminal_snr
from ddim_jax.solvers import Solver

PREDICTIONS = {"epsilon": EPS, "sample": X0, "v_prediction": V}
MULTISTEP = ("DPMSolverMultistep", "DPMSolverSinglestep", "UniPC", "DEIS", "SASolver")
Inputs = Callable[[Schedule, jax.Array, Any], tuple[jax.Array, Any]]
"""``(schedule, x_t, t) -> (x, level)``: what the network is given."""


class Sampling(NamedTuple):
  """What a scheduler's configuration means here; see `Pretrained` for the fields."""

  schedule: Schedule
  parameterisation: Parameterisation
  timesteps: Callable[[int], np.ndarray]
  solver: Solver
  restrict: Callable[[Denoiser, Schedule], Denoiser]
  config: dict[str, Any]
  inputs: Inputs


def _of_betas(config: dict[str, Any]) -> Schedule:
  T, ends, kind = (
    config["num_train_timesteps"],
    (config["beta_start"], config["beta_end"]),
    config["_class_name"],
  )
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
    if kind.startswith("DDPM"):
      tables |= {"sigmoid": lambda: sigmoid_schedule(T, *ends), "laplace": lambda: laplace_schedule(T)}
    if kind == "HeunDiscreteScheduler":
      tables["exp"] = lambda: exponential_schedule(T)
    schedule = choose(config, "beta_schedule", tables)()
  if not config.get("rescale_betas_zero_snr"):
    return schedule
  schedule = zero_terminal_snr(schedule)
  if kind.startswith(("DDIM", "DDPM")):
    return schedule
  # Their schedulers in sigma set the last value to this, above those of the levels before it, which few
  # sequences visit. Ours falls evenly there.
  alpha_bar = np.asarray(schedule.alpha_bar, np.float64)[1:]
  kept = int(np.sum(alpha_bar > 2.0**-24))
  tail = np.geomspace(alpha_bar[kept - 1], 2.0**-24, T - kept + 1)[1:]
  return from_alpha_bar(np.concatenate([alpha_bar[:kept], tail]))


def _restriction(config: dict[str, Any]) -> Callable[[Denoiser, Schedule], Denoiser]:
  if config.get("thresholding"):
    quantile, maximum = config["dynamic_thresholding_ratio"], config["sample_max_value"]
    return lambda denoise, schedule: dynamic_threshold(denoise, schedule, quantile, maximum)
  if config.get("clip_sample"):
    bound = config["clip_sample_range"]
    return lambda denoise, schedule: clip_x0(denoise, schedule, -bound, bound)
  return lambda denoise, schedule: denoise


def as_it_is(schedule: Schedule, x_t: jax.Array, t: Level) -> tuple[jax.Array, Any]:
  """The sample and its level: what most networks are given."""
  return x_t, t


def _whole(level: jax.Array, up: bool) -> jax.Array:
  """A real level as the whole one that diffusers names to the network."""
  level = jnp.asarray(level)
  if jnp.issubdtype(level.dtype, jnp.integer):
    return level
  return jnp.round(level) if up else jnp.floor(level + 1e-4)  # 1e-4: rounding of float32


def _inputs(config: dict[str, Any]) -> Inputs:
  """What the network of a scheduler with this class and these options is given."""
  kind, T = config["_class_name"], config["num_train_timesteps"]
  if kind.startswith("EDM"):

    def of_edm(schedule: Schedule, x_t: jax.Array, t: Level) -> tuple[jax.Array, Any]:
      x, noise = edm_input(schedule, x_t, t, config["sigma_data"])
      return x, noise + 1

    return of_edm
  if kind == "FlowMatchEulerDiscreteScheduler" or config.get("use_flow_sigmas"):
    whole = kind != "FlowMatchEulerDiscreteScheduler"

    def of_flow(schedule: Schedule, x_t: jax.Array, t: Level) -> tuple[jax.Array, Any]:
      x, u = flow_input(schedule, x_t, t)
      return x, (_whole(u * T, up=False) if whole else u * T) + 1

    return of_flow
  if continuous(config):
    return lambda schedule, x_t, t: (x_t, 1 - jnp.reshape(log_snr_at(schedule, t, x_t) / 8, jnp.shape(t)))
  if kind.startswith(MULTISTEP) and any(config.get(key) for key in spacings.ONLY_ONE):
    rounds = bool(config["use_karras_sigmas"] or config.get("use_lu_lambdas"))
    if kind == "DPMSolverMultistepScheduler" and config["beta_schedule"] == "squaredcos_cap_v2":
      rounds = False
    return lambda schedule, x_t, t: (x_t, _whole(t, up=rounds))
  return as_it_is


def continuous(config: dict[str, Any]) -> bool:
  """Whether the network of an EulerDiscreteScheduler is told log(sigma) / 4 instead of a timestep."""
  return config.get("timestep_type") == "continuous" and config["prediction_type"] == "v_prediction"


def _path(config: dict[str, Any]) -> tuple[Schedule, Parameterisation, spacings.Spacing]:
  """Schedule, parameterisation and spacing: each family has its own."""
  kind, T = config["_class_name"], config["num_train_timesteps"]
  if kind.startswith("EDM"):
    schedule = edm_schedule(T, config["sigma_min"], config["sigma_max"], config["rho"])
    plain = edm(config["sigma_data"])
    flipped = Parameterisation(  # "v_prediction" is the same with the opposite sign
      lambda *args: -plain.target(*args), lambda output, *args: plain.decode(-output, *args)
    )
    meaning = choose(config, "prediction_type", {"epsilon": plain, "v_prediction": flipped})
    return schedule, meaning, spacings.of_edm(config, schedule)
  if kind == "FlowMatchEulerDiscreteScheduler":
    refuse(
      config,
      {
        "use_dynamic_shifting": "the shift would depend on a number that the caller gives",
        "invert_sigmas": "the data would lie where the noise is",
      },
    )
    schedule = flow_schedule(T)
    return schedule, FLOW, spacings.of_flow_matching(config, schedule)
  schedule = _of_betas(config)
  if config.get("use_flow_sigmas"):
    chosen = dict.fromkeys(spacings.ONLY_ONE, "not together with use_flow_sigmas")
    refuse(config, chosen)
    lowest = float(np.exp(spacings.log_ratios(schedule)[0]))
    u = np.minimum(np.arange(1, T + 1) / T, 1 - 1e-6)  # theirs never begins with noise alone
    schedule = from_alpha_sigma(1 - u, u)
    meaning = choose(config, "prediction_type", {"epsilon": EPS, "sample": X0, "flow_prediction": FLOW})
    return schedule, meaning, spacings.of_flow_sigmas(config, schedule, lowest)
  meaning = choose(config, "prediction_type", PREDICTIONS | {"original_sample": X0})
  if kind.startswith(("DDIM", "DDPM", "PNDM")):
    return schedule, meaning, spacings.plain(config, T)
  if kind.startswith(MULTISTEP):
    return schedule, meaning, spacings.of_multistep(config, schedule)
  if continuous(config) and config["sigma_min"] and config["sigma_max"]:
    schedule = _with_own_sigmas(config, schedule)
  return schedule, meaning, spacings.of_sigmas(config, schedule)


def _with_own_sigmas(config: dict[str, Any], of_betas: Schedule) -> Schedule:
  """The schedule of an EulerDiscreteScheduler whose network takes any sigma: of its betas without a ramp.

  A last sigma that is not 0 is the lowest of the betas, also where the ramp has ends of its own.
  """
  if not any(config[key] for key in spacings.ONLY_ONE if key in config):
    return of_betas
  lowest = config["sigma_min"]
  if config["final_sigmas_type"] == "sigma_min":
    lowest = float(np.exp(spacings.log_ratios(of_betas)[0]))
    if lowest > config["sigma_min"]:
      refuse(
        config, {"final_sigmas_type": f"after sigma_min it would rise again, to the betas' {lowest:.4g}"}
      )
  return edm_schedule(of_betas.T, lowest, config["sigma_max"])


def from_scheduler(config: dict[str, Any], variance: Callable[..., jax.Array] | None = None) -> Sampling:
  """Reads the configuration of a diffusers scheduler, of any class in `scheduler_defaults.DEFAULTS`.

  Settings that the class itself ignores are ignored. An Inverse class is read as the one that it inverts: see
  `ddim_jax.invert`. Samples start from noise of unit variance, also where a pipeline of diffusers starts from
  a little less. What is not the same as there: "fixed_large_log", whose step is NaN in diffusers, is
  "fixed_large"; a last step to clean data adds no noise; PNDM averages eps, not v, and each of its steps
  leads to where the next begins; KDPM2 asks the network at real levels also with ``use_karras_sigmas``; a
  timestep of ``use_flow_sigmas`` that is whole is not one less by rounding; noise comes from our seeds, not
  from ``noise_sampler_seed``.

  Args:
    config: With its ``_class_name``.
    variance: ``(x_t, t) -> v``, the network's second output for ``variance_type`` "learned_range".

  Raises:
    ValueError: If it is another class's, a key is unknown, or a value is not supported.
  """
  kind = config.get("_class_name")
  defaults = choose({"_class_name": kind}, "_class_name", DEFAULTS)
  config = complete(config, defaults, str(kind), ELSEWHERE)
  number = lambda value: isinstance(value, (int, float)) and value == value and value is not True
  for key, default in defaults.items():
    if number(default) and default is not False and not number(config[key]):
      raise ValueError(f"{key} of a {kind} must be a number, got {config[key]!r}")
    if isinstance(default, bool) and config[key] not in (True, False, None):
      raise ValueError(f"{key} of a {kind} must be true or false, got {config[key]!r}")
  schedule, parameterisation, levels = _path(config)
  solver = solver_of(config, levels, variance)
  return Sampling(schedule, parameterisation, levels, solver, _restriction(config), config, _inputs(config))
