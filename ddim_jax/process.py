"""The forward process: from data to noise, or from noise to more noise, in one jump."""

import jax
import jax.numpy as jnp

from ddim_jax.schedules import Level, Schedule, check_arrays, coefficients, fresh_noise


def add_noise(schedule: Schedule, x0: jax.Array, eps: jax.Array, t: Level) -> jax.Array:
  r"""Draws from :math:`q(x_t | x_0)`: ``x_t = alpha_t * x0 + sigma_t * eps``. Equation (4) of [1].

  Args:
    schedule: Noise schedule. Traced.
    x0: Clean data, ``f32[B, ...]``, any rank, in data units (images: [-1, 1]).
    eps: Standard normal noise of the same shape.
    t: Level, ``i32[]`` or ``i32[B]``, in ``[0, T]``. Traced.

  Returns:
    The noisy sample, ``f32[B, ...]``.

  Raises:
    ValueError: At trace time, if ``x0`` and ``eps`` differ in shape, or ``t`` is no valid level.

  References:
    [1] Song, Meng, Ermon. Denoising Diffusion Implicit Models, arXiv:2010.02502.
  """
  check_arrays(schedule, x0=x0, eps=eps)
  alpha, sigma = coefficients(schedule, t, x0)
  return alpha * x0 + sigma * eps


def renoise(schedule: Schedule, x_t: jax.Array, z: jax.Array, t: Level, s: Level) -> jax.Array:
  r"""Draws from :math:`q(x_s | x_t)`, from level t to the noisier s (elsewhere s is the cleaner one).

  .. math:: x_s = \frac{\alpha_s}{\alpha_t} x_t + \sqrt{1 - \bar\alpha_s / \bar\alpha_t}\, z

  Args:
    schedule: Noise schedule. Traced.
    x_t: Sample at level ``t``, ``f32[B, ...]``.
    z: Standard normal noise of the same shape, independent of that in ``x_t``.
    t: Level, ``i32[]`` or ``i32[B]``, in ``[0, T]``. Traced.
    s: Level to reach, like ``t`` and at least ``t``; below it, nothing happens. Traced.

  Returns:
    The sample at level ``s``.

  Raises:
    ValueError: At trace time, as `add_noise`.
  """
  check_arrays(schedule, x_t=x_t, z=z)
  (alpha_t, _), (alpha_s, sigma_s) = coefficients(schedule, t, x_t), coefficients(schedule, s, x_t)
  share = fresh_noise(schedule, s, t, x_t)
  # 1 - alpha_bar_s / alpha_bar_t = (1 - SNR_s / SNR_t) * sigma_s^2, without cancellation.
  return jnp.where(share > 0, alpha_s / alpha_t * x_t + share * sigma_s * z, x_t)
