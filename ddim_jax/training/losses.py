"""What is minimised: the loss of each example, at levels drawn at random, weighted by level."""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from ddim_jax.checks import check_finite, check_positive, check_T
from ddim_jax.denoisers import check_signal
from ddim_jax.parameterisation import EPS, Parameterisation
from ddim_jax.process import add_noise
from ddim_jax.schedules import Schedule, coefficients, log_snr_at, wide

Levels = Callable[[jax.Array, jax.Array], jax.Array]
"""``(key, index) -> t``: the level of example ``index`` of a batch, ``i32[]`` in [1, T]."""
Network = Callable[[Any, jax.Array, jax.Array, Any, jax.Array], jax.Array]
"""``(params, x_t: [B, ...], t: i32[B], labels, keys: [B]) -> output: [B, ...]``, in training mode.

Labels are ``i32[B]``, or whatever the batches have in their place. Whatever is random about example i, such
as dropout, comes from ``keys[i]``: see `ddim_jax.UNet`."""


class Weighting(Protocol):
  """How much each level counts in the loss."""

  def __call__(self, schedule: Schedule, t: jax.Array, like: jax.Array, /) -> jax.Array:
    """The weight of the squared error in x0 at level ``t``, of the rank of ``like``.

    Args:
      schedule: Noise schedule.
      t: Levels, ``i32[B]``.
      like: The batch, ``f32[B, ...]``.
    """


def uniform_levels(T: int) -> Levels:
  """Each example's level is uniform over 1..T, as in DDPM; ValueError if T is no positive integer."""
  check_T(T)
  return lambda key, index: jax.random.randint(jax.random.fold_in(key, index), (), 1, T + 1)


def antithetic_levels(T: int) -> Levels:
  """Uniform, in pairs ``t`` and ``T + 1 - t``, as in the DDIM code: a loss of less variance."""
  uniform = uniform_levels(T)

  def levels(key: jax.Array, index: jax.Array) -> jax.Array:
    t = uniform(key, index // 2)
    return jnp.where(index % 2 == 0, t, T + 1 - t)

  return levels


def min_snr(gamma: float = 5.0) -> Weighting:
  """``min(SNR, gamma)``: Hang et al., arXiv:2303.09556; ValueError unless gamma is positive."""
  check_positive("gamma", gamma)
  return lambda schedule, t, like: jnp.minimum(jnp.exp(log_snr_at(schedule, t, like)), gamma)


def p2(gamma: float = 1.0, k: float = 1.0) -> Weighting:
  """``SNR / (k + SNR)^gamma``: Choi et al., arXiv:2204.00227; ValueError unless k is positive."""
  check_finite("gamma", gamma)
  check_positive("k", k)

  def weight(schedule: Schedule, t: jax.Array, like: jax.Array) -> jax.Array:
    snr = jnp.exp(log_snr_at(schedule, t, like))
    return snr / (k + snr) ** gamma

  return weight


def variational() -> Weighting:
  r"""The weights of the variational bound with reverse variance :math:`\beta_t`, in nats a dimension.

  Equation (12) of DDPM, arXiv:2006.11239, for x0 instead of eps:
  :math:`\beta_t \bar\alpha_{t-1} / (2 (1 - \bar\alpha_t)^2)`. Finite at all levels, an SNR of zero included.
  """

  def weight(schedule: Schedule, t: jax.Array, like: jax.Array) -> jax.Array:
    alpha_before, _ = coefficients(schedule, t - 1, like)
    alpha, sigma = coefficients(schedule, t, like)
    log_ratio = 2 * (jnp.log(alpha) - jnp.log(alpha_before))
    return -jnp.expm1(log_ratio) * alpha_before**2 / (2 * sigma**4)

  return weight


def split_each(keys: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Two independent keys for each of ``keys: [B]``, as two arrays of them."""
  pairs = jax.vmap(jax.random.split)(keys)
  return pairs[:, 0], pairs[:, 1]


def noised(
  keys: jax.Array, schedule: Schedule, x0: jax.Array, t: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """``(x_t, eps, keys)``: examples with noise of their own at levels ``[B]``, and the keys that are left."""
  noise_keys, left = split_each(keys)
  eps = jax.vmap(lambda key: jax.random.normal(key, x0.shape[1:], x0.dtype))(noise_keys)
  return add_noise(schedule, x0, eps, t), eps, left


def example_losses(
  network: Network,
  schedule: Schedule,
  parameterisation: Parameterisation = EPS,
  weighting: Weighting | None = None,
) -> Callable[..., jax.Array]:
  """The loss of each example: the squared error of the network's output, averaged over its elements.

  Args:
    network: See `Network`; it gets keys of its own for dropout and the like.
    schedule: Noise schedule.
    parameterisation: What the network predicts.
    weighting: None is L_simple, the error in the network's own target (equation (5) of the DDIM paper
      with gamma = 1). Otherwise that error is converted to one in x0 and weighted.

  Returns:
    ``(params, keys: [B], x0: f32[B, ...], labels: i32[B], t: i32[B]) -> f32[B]``; the loss of example i
    depends on the i-th of each alone. Of x0 in half precision it is f32 too.

  Raises:
    ValueError: For `EPS` and a schedule that is not traced and has no signal at its last level: nobody could
      sample from such a network.
  """
  check_signal(schedule, parameterisation)

  def losses(params: Any, keys: Any, x0: jax.Array, labels: Any, t: jax.Array) -> jax.Array:
    x_t, eps, network_keys = noised(keys, schedule, x0, t)
    x0, eps = (x.astype(wide(x0.dtype)) for x in (x0, eps))
    alpha, sigma = coefficients(schedule, t, x0)
    output = network(params, x_t, t, labels, network_keys).astype(x0.dtype)
    squares = (output - parameterisation.target(x0, eps, alpha, sigma)) ** 2
    errors = jnp.mean(squares, axis=tuple(range(1, x0.ndim)))
    if weighting is None:
      return errors
    # Decoding is affine, so this difference is d x0 / d output.
    one, zero = jnp.ones_like(alpha), jnp.zeros_like(alpha)
    decode = lambda output: parameterisation.decode(output, zero, alpha, sigma).x0
    slope = decode(one) - decode(zero)
    return jnp.reshape(weighting(schedule, t, x0).astype(x0.dtype) * slope**2, errors.shape) * errors

  return losses
