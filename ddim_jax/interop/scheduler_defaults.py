"""The settings of diffusers' schedulers: what each class knows, its defaults, and what only others know.

A file often holds settings of another class: whoever opens a pipeline with another scheduler and saves it
leaves them behind. diffusers ignores those, and so do we; a setting that no class here knows may be one of a
newer diffusers and is refused.
"""

from typing import Any

_BETAS = {
  "num_train_timesteps": 1000,
  "beta_start": 0.0001,
  "beta_end": 0.02,
  "beta_schedule": "linear",
  "trained_betas": None,
  "prediction_type": "epsilon",
}
_CLIP = {"clip_sample": True, "clip_sample_range": 1.0}
_THRESHOLD = {"thresholding": False, "dynamic_thresholding_ratio": 0.995, "sample_max_value": 1.0}
_RESCALE = {"rescale_betas_zero_snr": False}
_LEADING = {"timestep_spacing": "leading", "steps_offset": 0}
_LINSPACE = {"timestep_spacing": "linspace", "steps_offset": 0}
_SIGMAS = {"use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False}
_FLOW = {
  "use_flow_sigmas": False,
  "flow_shift": 1.0,
  "use_dynamic_shifting": False,
  "time_shift_type": "exponential",
}
_STABLE_DIFFUSION = {"beta_start": 0.00085, "beta_end": 0.012}
_MULTISTEP = _BETAS | _THRESHOLD | _SIGMAS | _FLOW | {"solver_order": 2, "lower_order_final": True}

_DDIM = _BETAS | _CLIP | _THRESHOLD | _LEADING | _RESCALE | {"set_alpha_to_one": True}
_DDPM = _BETAS | _CLIP | _THRESHOLD | _LEADING | _RESCALE | {"variance_type": "fixed_small"}
_DPM = (
  _MULTISTEP
  | _LINSPACE
  | {
    "algorithm_type": "dpmsolver++",
    "solver_type": "midpoint",
    "euler_at_final": False,
    "use_lu_lambdas": False,
    "final_sigmas_type": "zero",
    "lambda_min_clipped": -float("inf"),
    "variance_type": None,
  }
  | _RESCALE
)
_EDM = {
  "sigma_min": 0.002,
  "sigma_max": 80.0,
  "sigma_data": 0.5,
  "sigma_schedule": "karras",
  "num_train_timesteps": 1000,
  "prediction_type": "epsilon",
  "rho": 7.0,
  "final_sigmas_type": "zero",
}

DEFAULTS: dict[str, dict[str, Any]] = {
  "DDIMScheduler": _DDIM,
  "DDIMParallelScheduler": _DDIM,
  "DDIMInverseScheduler": _DDIM,
  "DDPMScheduler": _DDPM,
  "DDPMParallelScheduler": _DDPM,
  "PNDMScheduler": _BETAS | _LEADING | {"skip_prk_steps": False, "set_alpha_to_one": False},
  "DPMSolverMultistepScheduler": _DPM,
  "DPMSolverMultistepInverseScheduler": _DPM,
  "DPMSolverSinglestepScheduler": {
    key: value
    for key, value in (_DPM | {"lower_order_final": False}).items()
    if key not in ("euler_at_final", "use_lu_lambdas", *_LINSPACE, *_RESCALE)
  },
  "UniPCMultistepScheduler": _MULTISTEP
  | _LINSPACE
  | _RESCALE
  | {
    "predict_x0": True,
    "solver_type": "bh2",
    "disable_corrector": [],
    "solver_p": None,
    "final_sigmas_type": "zero",
    "sigma_min": None,
    "sigma_max": None,
    "shift_terminal": None,
  },
  "DEISMultistepScheduler": _MULTISTEP | _LINSPACE | {"algorithm_type": "deis", "solver_type": "logrho"},
  "SASolverScheduler": {
    key: value
    for key, value in (_MULTISTEP | _LINSPACE).items()
    if key not in ("solver_order", "use_dynamic_shifting", "time_shift_type")
  }
  | {
    "predictor_order": 2,
    "corrector_order": 2,
    "tau_func": None,
    "algorithm_type": "data_prediction",
    "lambda_min_clipped": -float("inf"),
    "variance_type": None,
  },
  "HeunDiscreteScheduler": _BETAS
  | _STABLE_DIFFUSION
  | _SIGMAS
  | _LINSPACE
  | {"clip_sample": False, "clip_sample_range": 1.0},
  "EulerDiscreteScheduler": _BETAS
  | _SIGMAS
  | _LINSPACE
  | _RESCALE
  | {
    "interpolation_type": "linear",
    "sigma_min": None,
    "sigma_max": None,
    "timestep_type": "discrete",
    "final_sigmas_type": "zero",
  },
  "EulerAncestralDiscreteScheduler": _BETAS | _LINSPACE | _RESCALE,
  "LMSDiscreteScheduler": _BETAS | _SIGMAS | _LINSPACE,
  "KDPM2DiscreteScheduler": _BETAS | _STABLE_DIFFUSION | _SIGMAS | _LINSPACE,
  "KDPM2AncestralDiscreteScheduler": _BETAS | _STABLE_DIFFUSION | _SIGMAS | _LINSPACE,
  "DPMSolverSDEScheduler": _BETAS | _STABLE_DIFFUSION | _SIGMAS | _LINSPACE | {"noise_sampler_seed": None},
  "EDMEulerScheduler": _EDM,
  "EDMDPMSolverMultistepScheduler": _EDM
  | _THRESHOLD
  | {
    "solver_order": 2,
    "algorithm_type": "dpmsolver++",
    "solver_type": "midpoint",
    "lower_order_final": True,
    "euler_at_final": False,
  },
  "FlowMatchEulerDiscreteScheduler": _SIGMAS
  | {
    "num_train_timesteps": 1000,
    "shift": 1.0,
    "use_dynamic_shifting": False,
    "base_shift": 0.5,
    "max_shift": 1.15,
    "base_image_seq_len": 256,
    "max_image_seq_len": 4096,
    "invert_sigmas": False,
    "shift_terminal": None,
    "time_shift_type": "exponential",
    "stochastic_sampling": False,
  },
}

_UNREAD = """
alpha_cum_end alpha_cum_start block_length clip_denoised correct_steps corrector_k
corrector_selection corrector_selection_tau corrector_steps editing_threshold entropy_bound eps eta
final_step_size_scale gamma gamma_cum_end gamma_cum_start mask_token_id masking_schedule
minimal_topk n_grid noise_mode num_inference_steps num_policy_substeps
num_vec_classes original_inference_steps s s_noise sampling_eps scale_factors scaler schedule_mode
scheduler_type snr snr_shift_scale stage_range stages t_lim_ode t_lim_ode_below t_max t_min
tail_step_multiplier tail_steps threshold timestep_scaling tsr_k tsr_sigma upscale_mode
"""
"""Settings of classes that are not read here."""
ELSEWHERE = frozenset().union(
  *DEFAULTS.values(),
  _UNREAD.split(),
  # Of the first versions.
  ("tensor_format", "timestep_values"),
)
"""Settings that a class may find in its file and ignores."""


def complete(
  config: dict[str, Any], defaults: dict[str, Any], kind: str, ignored: frozenset[str] = frozenset()
) -> dict[str, Any]:
  """The configuration with defaults for absent keys; keys that begin with "_" are kept as they are.

  Args:
    config: As in the file.
    defaults: What this class knows.
    kind: Its name, for messages.
    ignored: Keys to drop, unless the class knows them.

  Raises:
    ValueError: If a key is neither known nor to be ignored.
  """
  wanted = lambda key: key in defaults or key.startswith("_")
  if unknown := sorted(key for key in config if not wanted(key) and key not in ignored):
    raise ValueError(f"unknown keys in the configuration of a {kind}: {', '.join(unknown)}")
  return defaults | {key: value for key, value in config.items() if wanted(key)}


def choose(config: dict[str, Any], key: str, table: dict[Any, Any]) -> Any:
  """The entry of ``table`` that the configuration names.

  Raises:
    ValueError: If there is none; names the key, the value and what is allowed.
  """
  if config[key] not in list(table):  # a list in a file has no hash
    raise ValueError(f"{key} must be one of {', '.join(map(repr, table))}, got {config[key]!r}")
  return table[config[key]]


def refuse(config: dict[str, Any], reasons: dict[str, str]) -> None:
  """Raises ValueError if a setting that cannot be expressed here is on; ``reasons`` says why, by key."""
  for key, reason in reasons.items():
    if config.get(key):
      raise ValueError(f"{key} = {config[key]!r} of a {config['_class_name']} is not supported: {reason}")
