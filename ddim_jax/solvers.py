"""Solvers: how a sample moves from one noise level to the next.

A solver is a pair of pure functions, as an optax optimiser is. ``ddim`` and ``ddpm`` need no memory
of earlier steps, so their carry is empty.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ddim_jax.parameterisation import Prediction
from ddim_jax.schedules import Schedule, coefficients, log_snr_at


class Solver(NamedTuple):
  """A rule for one step of the reverse process.

  Attributes:
    init: ``(x_T) -> carry``: the solver's memory before the first step, a pytree.
    step: ``(denoise, schedule, carry, x_t, t, s, z) -> (x_s, carry, prediction)``: from level ``t``
      to level ``s``; ``z`` is standard normal noise of the shape of ``x_t``.
  """

  init: Callable[[jax.Array], Any]
  step: Callable[..., tuple[jax.Array, Any, Prediction]]


def _sqrt(x):
  """Square root with derivative 0 at 0 instead of infinity; NaN below 0, as ``jnp.sqrt``."""
  return jnp.where(x == 0, 0, jnp.sqrt(jnp.where(x == 0, 1, x)))


def _fresh_noise(schedule, t, s, like):
  """``sqrt(1 - SNR_t / SNR_s)``: the share of the noise at ``s`` that eta = 1 draws anew."""
  change = log_snr_at(schedule, t, like) - log_snr_at(schedule, s, like)
  return _sqrt(-jnp.expm1(jnp.minimum(change, 0))).astype(like.dtype)


def _check(prediction):
  if prediction.x0.shape != prediction.eps.shape:
    raise ValueError(
      f"prediction.x0 and prediction.eps differ in shape: {prediction.x0.shape} and {prediction.eps.shape}"
    )


def ddim_step(schedule: Schedule, prediction: Prediction, t, s, *, eta=0.0, z=0.0) -> jax.Array:
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
      posterior. Traced. Values above 1 may give NaN.
    z: Standard normal noise, ``f32[B, ...]``; has no effect when ``eta`` is 0.

  Returns:
    The sample at level ``s``, ``f32[B, ...]``, in data units.

  Raises:
    ValueError: At trace time, if x0 and eps differ in shape or a level is invalid.

  References:
    [1] Song, Meng, Ermon. Denoising Diffusion Implicit Models, arXiv:2010.02502.
  """
  x0, eps = prediction
  _check(prediction)
  alpha, sigma = coefficients(schedule, s, x0)
  f = jnp.asarray(eta, x0.dtype) * _fresh_noise(schedule, t, s, x0)
  return alpha * x0 + sigma * (_sqrt(1 - f**2) * eps + f * z)


def _memoryless(move) -> Solver:
  """A solver of one denoiser call a step: ``move(schedule, prediction, t, s, z) -> x_s``."""

  def step(denoise, schedule, carry, x_t, t, s, z):
    prediction = denoise(x_t, t)
    return move(schedule, prediction, t, s, z), carry, prediction

  return Solver(init=lambda x: (), step=step)


def ddim(eta: float | jax.Array = 0.0) -> Solver:
  """The solver of the paper. ``eta`` in [0, 1] is traced: see `ddim_step`."""
  return _memoryless(lambda schedule, p, t, s, z: ddim_step(schedule, p, t, s, eta=eta, z=z))


def _large_variance_move(schedule, prediction, t, s, z):
  r"""The step of eta = 1 with noise of variance :math:`1 - \bar\alpha_t / \bar\alpha_s`."""
  mean = ddim_step(schedule, prediction, t, s, eta=1.0)
  _, sigma_t = coefficients(schedule, t, mean)
  # 1 - alpha_bar_t / alpha_bar_s = (1 - SNR_t / SNR_s) * (1 - alpha_bar_t), without cancellation.
  sigma_hat = _fresh_noise(schedule, t, s, mean) * sigma_t
  to_data = jnp.reshape(s, jnp.shape(s) + (1,) * (mean.ndim - jnp.ndim(s))) == 0
  return mean + jnp.where(to_data, 0, sigma_hat) * z


def ddpm(variance: str = "small") -> Solver:
  r"""Ancestral sampling on any sequence of levels.

  Args:
    variance: ``"small"``: the posterior's, the same as ``ddim(eta=1)``. ``"large"``: the paper's
      sigma-hat, whose noise has variance :math:`1 - \bar\alpha_t / \bar\alpha_s` (one level at a
      time: beta), except that the step to level 0 adds none. Section 3.2 of DDPM, arXiv:2006.11239;
      section 5 of the DDIM paper.

  Raises:
    ValueError: If ``variance`` is neither.
  """
  if variance == "small":
    return ddim(eta=1.0)
  if variance == "large":
    return _memoryless(_large_variance_move)
  raise ValueError(f'variance must be "small" or "large", got {variance!r}')
