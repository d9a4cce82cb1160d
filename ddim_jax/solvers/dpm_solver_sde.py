"""DPM-Solver++ (SDE): two stages per step along one path of noise; no memory of earlier steps.

Published as code only: ``sample_dpmpp_sde`` of k-diffusion, DPMSolverSDEScheduler of diffusers.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ddim_jax.checks import check_eta, known
from ddim_jax.denoisers import Denoiser
from ddim_jax.schedules import Level, Schedule
from ddim_jax.solvers.base import Solver, Stepped, half_log_snr, is_unbounded, with_mean_x0
from ddim_jax.solvers.ddim import ddim_step
from ddim_jax.solvers.singlestep import half_way


def _two(z: Any, x: jax.Array, eta: Any) -> jax.Array:
  """Both draws of noise, ``f32[2, B, ...]``; any will do where ``eta`` is 0."""
  values = known(eta)
  if values is not None and not np.any(values):
    return jnp.zeros((2, *x.shape), x.dtype)
  if jnp.shape(z) != (2, *x.shape):
    raise ValueError(f"z must be two draws of noise, of shape {(2, *x.shape)}, got {jnp.shape(z)}")
  return jnp.asarray(z)


def dpm_solver_pp_sde(eta: ArrayLike = 1.0) -> Solver:
  r"""DPM-Solver++ (SDE): two network evaluations and two draws of noise per step.

  Both stages are steps of `ddim_jax.ddim_step` from ``t`` with this ``eta``. The first goes half way in
  lambda, to m; the second goes to ``s``, with the prediction of x0 at m for its mean. Their noises belong to
  one Brownian motion in :math:`\rho = \sigma / \alpha`, of which the second takes the whole increment:

  .. math::
    z_m = z_1, \qquad z_s = \sqrt{c}\, z_1 + \sqrt{1 - c}\, z_2, \qquad
    c = \frac{\rho_t - \rho_m}{\rho_t - \rho_s} = \frac{1}{1 + e^{-h/2}}

  With independent noises the samples would be right to first order only; with these the distribution of the
  samples is of order 2 and each path of order 1. With ``eta`` 0 it is `ddim_jax.dpm_solver_pp_2s`, of order
  2. The step to level 0 is DDIM and takes one evaluation. The point half way lies between integer levels.

  Args:
    eta: Dimensionless in [0, 1], as in `ddim_jax.ddim_step`: 0 deterministic, 1 the SDE. Traced.

  Returns:
    A solver with ``draws`` 2: its step takes ``z: f32[2, B, ...]``, or anything where ``eta`` is 0 and not
    traced.

  Raises:
    ValueError: If ``eta`` is outside [0, 1] and not traced; at trace time, if ``z`` is not two draws.
  """
  check_eta(eta)

  def step(
    denoise: Denoiser, schedule: Schedule, carry: Any, x_t: jax.Array, t: Level, s: Level, z: jax.Array
  ) -> Stepped:
    first, second = _two(z, x_t, eta)
    prediction = denoise(x_t, t)
    x0 = half_way(denoise, schedule, prediction, x_t, t, s, eta=eta, z=first).x0
    h = half_log_snr(schedule, s, x_t) - half_log_snr(schedule, t, x_t)
    half = jnp.where(is_unbounded(schedule, t, s, x_t), 0, h / 2)
    share = lambda u: jnp.sqrt(jax.nn.sigmoid(u)).astype(x_t.dtype)
    whole = share(half) * first + share(-half) * second
    average = with_mean_x0(prediction, schedule, t, x0)
    return ddim_step(schedule, average, t, s, eta=eta, z=whole), carry, prediction

  return Solver(init=lambda x: (), step=step, draws=2)
