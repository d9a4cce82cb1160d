"""The forward process: from data to noise in one jump."""

import jax

from ddim_jax.schedules import Schedule, coefficients


def add_noise(schedule: Schedule, x0: jax.Array, eps: jax.Array, t) -> jax.Array:
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
  if x0.shape != eps.shape:
    raise ValueError(f"x0 and eps must have the same shape, got {x0.shape} and {eps.shape}")
  alpha, sigma = coefficients(schedule, t, x0)
  return alpha * x0 + sigma * eps
