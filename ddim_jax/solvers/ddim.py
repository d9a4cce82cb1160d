"""DDIM and DDPM: one prediction a step, no memory of earlier ones."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ddim_jax.checks import check_eta, check_number, check_range
from ddim_jax.denoisers import Denoiser
from ddim_jax.parameterisation import Prediction
from ddim_jax.schedules import Level, Schedule, coefficients, fresh_noise, log_snr_at, safe_sqrt, wide
from ddim_jax.solvers.base import Solver, Stepped, is_clean


def _check(prediction: Prediction) -> None:
  if prediction.x0.shape != prediction.eps.shape:
    raise ValueError(
      f"prediction.x0 and prediction.eps differ in shape: {prediction.x0.shape} and {prediction.eps.shape}"
    )


def ddim_step(
  schedule: Schedule,
  prediction: Prediction,
  t: Level,
  s: Level,
  *,
  eta: ArrayLike = 0.0,
  z: ArrayLike = 0.0,
) -> jax.Array:
  r"""Moves a sample from noise level ``t`` to noise level ``s``.

  .. math::
    x_s = \alpha_s \hat x_0 + \sigma_s \bigl(\sqrt{1 - f^2}\,\hat\epsilon + f z\bigr),
    \qquad f = \eta \sqrt{\max(0, 1 - \mathrm{SNR}_t / \mathrm{SNR}_s)}

  Equation (12) of [1]; its :math:`\sigma_t(\eta)`, equation (16), is :math:`f \sigma_s`. The noise
  turns from :math:`\hat\epsilon` towards :math:`z` and keeps unit variance, :math:`(1-f^2)+f^2 = 1`,
  so the marginal at ``s`` is right for every ``eta``. For ``s > t`` (inversion) ``f`` is 0.

  Args:
    schedule: Noise schedule. Traced.
    prediction: Estimates of x0 and eps at level ``t``, each ``f32[B, ...]``.
    t: Current level, ``i32[]`` or ``i32[B]``, in ``[0, T]``. Traced.
    s: Target level, like ``t``. Traced. ``s == t`` leaves a consistent prediction where it is.
    eta: Dimensionless ``f32[]`` in [0, 1]: 0 is deterministic, 1 has the variance of the DDPM
      posterior. Traced. Traced values above 1 may give NaN.
    z: Standard normal noise, ``f32[B, ...]``; has no effect when ``eta`` is 0.

  Returns:
    The sample at level ``s``, ``f32[B, ...]``, in data units.

  Raises:
    ValueError: At trace time, if x0, eps and z differ in shape, a level is invalid, or an ``eta`` that is not
      traced is out of range.

  References:
    [1] Song, Meng, Ermon. Denoising Diffusion Implicit Models, arXiv:2010.02502.
  """
  _check(prediction)
  check_range("eta", eta, 0, 1)
  if np.ndim(eta) not in (0, prediction.x0.ndim):
    raise ValueError(f"eta must be one number, got shape {np.shape(eta)}")
  check_number("z", z)
  if np.ndim(z) and np.shape(z) != prediction.x0.shape:
    raise ValueError(f"z must be noise of shape {prediction.x0.shape}, got {np.shape(z)}")
  dtype = prediction.x0.dtype
  x0, eps = (part.astype(wide(dtype)) for part in prediction)
  z = z.astype(x0.dtype) if isinstance(z, jax.Array) else z
  alpha, sigma = coefficients(schedule, s, x0)
  f = jnp.asarray(eta, x0.dtype) * fresh_noise(schedule, t, s, x0)
  return (alpha * x0 + sigma * (safe_sqrt(1 - f**2) * eps + f * z)).astype(dtype)


def ddim(eta: float | jax.Array = 0.0) -> Solver:
  """The solver of the paper. ``eta`` in [0, 1] is traced: see `ddim_step`.

  Others know it by more names. In ``sigma / alpha`` and ``x / alpha`` it is Euler's rule, so ``ddim()`` is
  EulerDiscreteScheduler of diffusers and "Euler" of k-diffusion, and ``ddim(eta=1)`` is
  EulerAncestralDiscreteScheduler, "Euler a"; with `ddim_jax.FLOW` it is FlowMatchEulerDiscreteScheduler.

  Raises:
    ValueError: If an ``eta`` that is not traced is outside [0, 1].
  """
  check_eta(eta)

  def step(
    denoise: Denoiser, schedule: Schedule, carry: Any, x_t: jax.Array, t: Level, s: Level, z: jax.Array
  ) -> Stepped:
    prediction = denoise(x_t, t)
    return ddim_step(schedule, prediction, t, s, eta=eta, z=z), carry, prediction

  return Solver(init=lambda x: (), step=step)


def _between_variances(schedule: Schedule, x_t: jax.Array, t: Level, s: Level, share: Any) -> jax.Array:
  r"""Standard deviation of the noise: of log-variance ``share`` of the way from "small" to "large".

  The two are :math:`f \sigma_s` and :math:`f \sigma_t` with f of eta = 1: see `fresh_noise`.
  """
  low, high = _log_sigma(schedule, s, x_t), _log_sigma(schedule, t, x_t)
  share = jnp.asarray(share, low.dtype)
  between = (1 - share) * low + share * high
  deviation = fresh_noise(schedule, t, s, x_t) * jnp.exp(between).astype(x_t.dtype)
  return jnp.where(is_clean(schedule, s, x_t), 0, deviation)


def _log_sigma(schedule: Schedule, t: Level, like: jax.Array) -> jax.Array:
  return 0.5 * jax.nn.log_sigmoid(-log_snr_at(schedule, t, like))


def ddpm(variance: str | Callable[..., jax.Array] = "small") -> Solver:
  r"""Ancestral sampling on any sequence of levels.

  Args:
    variance: ``"small"``: the posterior's, the same as ``ddim(eta=1)``. ``"large"``: the paper's
      sigma-hat, whose noise has variance :math:`1 - \bar\alpha_t / \bar\alpha_s` (one level at a
      time: beta), except that the step to level 0 adds none. Section 3.2 of DDPM, arXiv:2006.11239;
      section 5 of the DDIM paper. A function ``(x_t, t) -> v`` for a network that has learned where
      between the two it lies, "learned range": v of the shape of ``x_t``, -1 for small and 1 for large,
      linear in the logarithm; equation (15) of Nichol and Dhariwal, arXiv:2102.09672. Where ``v`` and the
      denoiser call the same network with the same arguments, XLA evaluates it once, but in a loop may do so
      twice.

  Raises:
    ValueError: If ``variance`` is none of them.
  """
  if variance == "small":
    return ddim(eta=1.0)
  share: Callable[..., Any]
  if variance == "large":
    share = lambda x_t, t: 1.0
  elif callable(variance):
    share = lambda x_t, t: ((variance(x_t, t) + 1) / 2).astype(x_t.dtype)
  else:
    raise ValueError(f'variance must be a function, "small" or "large", got {variance!r}')

  def step(
    denoise: Denoiser, schedule: Schedule, carry: Any, x_t: jax.Array, t: Level, s: Level, z: jax.Array
  ) -> Stepped:
    prediction = denoise(x_t, t)
    mean = ddim_step(schedule, prediction, t, s, eta=1.0)
    return mean + _between_variances(schedule, x_t, t, s, share(x_t, t)) * z, carry, prediction

  return Solver(init=lambda x: (), step=step)
