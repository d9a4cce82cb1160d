"""The loss of a network that also predicts the variances of its reverse process."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ddim_jax.checks import check_finite
from ddim_jax.denoisers import check_signal
from ddim_jax.likelihood import discretised_gaussian
from ddim_jax.parameterisation import EPS, Parameterisation
from ddim_jax.schedules import Schedule, coefficients, log_snr_at, wide
from ddim_jax.training.losses import Network, noised


def _bits(schedule: Schedule, x0: jax.Array, guess: jax.Array, v: jax.Array, t: jax.Array) -> jax.Array:
  """Term t of the variational bound, in bits per dimension, ``f32[B]``; see `hybrid_losses`."""
  first = jnp.reshape(t == 1, (-1,) + (1,) * (x0.ndim - 1))
  snr = lambda level: log_snr_at(schedule, level, x0).astype(x0.dtype)
  log_variance = lambda level: jax.nn.log_sigmoid(-snr(level))
  share, t = (v + 1) / 2, jnp.maximum(t, 2)  # term 1 is another
  r = share * (log_variance(t) - log_variance(t - 1))  # log(variance / that of the posterior)
  weight = jnp.exp(snr(t - 1) - r) * -jnp.expm1(snr(t) - snr(t - 1))
  divergence = (r + jnp.expm1(-r) + weight * (x0 - guess) ** 2) / 2
  # The posterior of the step to level 0 has no variance: its lower bound is that of the step before.
  lowest, one = jnp.log(-jnp.expm1(snr(2) - snr(1))), log_variance(1)
  std = jnp.exp((one + (1 - share) * lowest) / 2)
  decoder = -discretised_gaussian(x0, jnp.where(first, guess, x0), std)
  nats = jnp.where(first, decoder, divergence)
  return jnp.mean(nats, axis=tuple(range(1, x0.ndim))) / jnp.log(2.0).astype(x0.dtype)


def hybrid_losses(
  network: Network, schedule: Schedule, parameterisation: Parameterisation = EPS, *, weight: float = 1e-3
) -> Callable[..., jax.Array]:
  r"""The loss of each example: :math:`L_{simple} + \lambda L_{vlb}`, equation (16) of [1].

  :math:`L_{vlb} = L_0 + \dots + L_{T-1}` is estimated by T times the term of the example's level: the
  divergence between the posterior :math:`q(x_{t-1} | x_t, x_0)` and the network's step, whose log-variance v
  places between the posterior's (-1) and that of :math:`\beta_t` (1), equation (15); at level 1 the decoder
  of bytes in [-1, 1]. It is in bits per dimension, as in the code of [1]. No gradient of it reaches the
  prediction.

  Args:
    network: See `ddim_jax.training.Network`; its output has twice the channels of ``x_t``: the prediction, v.
    schedule: Noise schedule, with T of at least 2.
    parameterisation: What the first half of the channels is.
    weight: The paper's lambda. Static.

  Returns:
    ``(params, keys: [B], x0: f32[B, ..., C], labels: i32[B], t: i32[B]) -> f32[B]``, as
    `ddim_jax.training.example_losses`; whole levels alone.

  Raises:
    ValueError: As `ddim_jax.training.example_losses`, or if T is 1 or the weight not finite.

  References:
    [1] Nichol and Dhariwal, Improved Denoising Diffusion Probabilistic Models, arXiv:2102.09672.
  """
  check_signal(schedule, parameterisation)
  check_finite("weight", weight)
  if schedule.T < 2:
    raise ValueError("schedule must have at least 2 levels where variances are learned, got 1")

  def losses(params: Any, keys: Any, x0: jax.Array, labels: Any, t: jax.Array) -> jax.Array:
    x_t, eps, network_keys = noised(keys, schedule, x0, t)
    output = network(params, x_t, t, labels, network_keys)
    x0, eps, x_t, output = (x.astype(wide(x0.dtype)) for x in (x0, eps, x_t, output))
    alpha, sigma = coefficients(schedule, t, x0)
    prediction, v = jnp.split(output, 2, axis=-1)
    squares = (prediction - parameterisation.target(x0, eps, alpha, sigma)) ** 2
    guess = jax.lax.stop_gradient(parameterisation.decode(prediction, x_t, alpha, sigma).x0)
    simple = jnp.mean(squares, axis=tuple(range(1, x0.ndim)))
    return simple + weight * schedule.T * _bits(schedule, x0, guess, v, t)

  return losses
