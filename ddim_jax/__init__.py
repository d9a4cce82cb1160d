"""DDIM in JAX: ``Schedule -> add_noise -> Parameterisation -> Denoiser -> Solver -> sample``.

`load` gives a trained `Model`. Importing this package imports jax, flax and numpy only. The rest are modules
of their own: ``from ddim_jax import models, runs, training, data, metrics, interop, checkpoints, plots``;
so are `distillation`, `bijective`, `continuous` and `likelihood`.
"""

from ddim_jax import timesteps
from ddim_jax.beta_schedules import (
  constant_schedule,
  cosine_schedule,
  exponential_schedule,
  jsd_schedule,
  laplace_schedule,
  linear_schedule,
  quadratic_schedule,
  sigmoid_schedule,
  warmup_schedule,
)
from ddim_jax.denoisers import Denoiser, as_denoiser, clip_x0, dynamic_threshold
from ddim_jax.guidance import class_log_probability, classifier_guide, guide
from ddim_jax.inverse_problems import (
  LinearOperator,
  colourisation,
  constrain,
  inpaint,
  masked,
  repaint,
  super_resolution,
)
from ddim_jax.inversion import invert
from ddim_jax.models import Model, load
from ddim_jax.noise_maps import NoiseMaps, decode_noises, encode_noises
from ddim_jax.parallel import sample_parallel
from ddim_jax.parameterisation import EDM, EPS, FLOW, X0, Parameterisation, Prediction, V, edm
from ddim_jax.paths import edm_input, edm_schedule, flow_input, flow_schedule, from_alpha_sigma
from ddim_jax.process import add_noise, renoise
from ddim_jax.sampling import Step, interpolate, sample, slerp
from ddim_jax.schedules import Schedule, from_alpha_bar, from_betas, zero_terminal_snr
from ddim_jax.seeds import image_keys, initial_noise
from ddim_jax.solvers import (
  Solver,
  ancestral,
  ddim,
  ddim_step,
  ddpm,
  deis,
  dpm_solver_2,
  dpm_solver_pp,
  dpm_solver_pp_2s,
  dpm_solver_pp_sde,
  dpm_solver_pp_singlestep,
  heun,
  lms,
  lower_order_final,
  plms,
  pndm,
  sa_solver,
  unipc,
)
from ddim_jax.unet import UNet

__version__ = "0.1.0"

__all__ = [
  "EDM",
  "EPS",
  "FLOW",
  "X0",
  "Denoiser",
  "LinearOperator",
  "Model",
  "NoiseMaps",
  "Parameterisation",
  "Prediction",
  "Schedule",
  "Solver",
  "Step",
  "UNet",
  "V",
  "add_noise",
  "ancestral",
  "as_denoiser",
  "class_log_probability",
  "classifier_guide",
  "clip_x0",
  "colourisation",
  "constant_schedule",
  "constrain",
  "cosine_schedule",
  "ddim",
  "ddim_step",
  "ddpm",
  "decode_noises",
  "deis",
  "dpm_solver_2",
  "dpm_solver_pp",
  "dpm_solver_pp_2s",
  "dpm_solver_pp_sde",
  "dpm_solver_pp_singlestep",
  "dynamic_threshold",
  "edm",
  "edm_input",
  "edm_schedule",
  "encode_noises",
  "exponential_schedule",
  "flow_input",
  "flow_schedule",
  "from_alpha_bar",
  "from_alpha_sigma",
  "from_betas",
  "guide",
  "heun",
  "image_keys",
  "initial_noise",
  "inpaint",
  "interpolate",
  "invert",
  "jsd_schedule",
  "laplace_schedule",
  "linear_schedule",
  "lms",
  "load",
  "lower_order_final",
  "masked",
  "plms",
  "pndm",
  "quadratic_schedule",
  "renoise",
  "repaint",
  "sa_solver",
  "sample",
  "sample_parallel",
  "sigmoid_schedule",
  "slerp",
  "super_resolution",
  "timesteps",
  "unipc",
  "warmup_schedule",
  "zero_terminal_snr",
]
