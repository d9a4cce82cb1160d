"""Training at real-valued levels: how EDM and flow matching draw them, and how they weigh the loss.

For `ddim_jax.training.make_train_step` and `ddim_jax.training.example_losses`; with the parameterisations
`ddim_jax.EDM` and `ddim_jax.FLOW`, no weighting is needed, since it is in the output already.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from ddim_jax.checks import check_finite, check_positive, check_range
from ddim_jax.schedules import Schedule, coefficients, level_at


def log_normal_levels(
  schedule: Schedule, mean: float = -1.2, std: float = 1.2
) -> Callable[[jax.Array, jax.Array], jax.Array]:
  """Real levels at which ``log(sigma / alpha)`` is normal; EDM's by default.

  Args:
    schedule: Noise schedule. Levels that it does not reach become 1 or T.
    mean: Of ``log(sigma / alpha)``, in nats.
    std: Its standard deviation, at least 0.

  Returns:
    ``(key, index) -> t``, ``f32[]`` in [1, T].

  Raises:
    ValueError: If ``mean`` or ``std`` is not finite, or ``std`` is negative.

  References:
    Table 1 of Karras et al., arXiv:2206.00364.
  """
  check_finite("mean", mean)
  check_finite("std", std)
  check_range("std", std, 0, jnp.inf)

  def levels(key: jax.Array, index: jax.Array) -> jax.Array:
    drawn = jax.random.normal(jax.random.fold_in(key, index), (), schedule.log_snr.dtype)
    centre, spread = (jnp.asarray(value, drawn.dtype) for value in (mean, std))
    return jnp.maximum(level_at(schedule, -2 * (centre + spread * drawn)), 1)

  return levels


def logit_normal_levels(
  schedule: Schedule, mean: float = 0.0, std: float = 1.0
) -> Callable[[jax.Array, jax.Array], jax.Array]:
  """Real levels at which the logit of flow's time u is normal, as in Esser et al., arXiv:2403.03206.

  Since ``log(u / (1 - u)) = log(sigma / alpha)``, the same as `log_normal_levels` with other numbers.
  """
  return log_normal_levels(schedule, mean, std)


def edm_weight(sigma_data: float = 0.5) -> Callable[[Schedule, jax.Array, jax.Array], jax.Array]:
  """EDM's weight of the squared error in x0: ``(s^2 + d^2) / (s d)^2``, s = sigma / alpha, d = sigma_data.

  Raises:
    ValueError: If ``sigma_data`` is not positive.
  """
  check_positive("sigma_data", sigma_data)

  def weight(schedule: Schedule, t: jax.Array, like: jax.Array) -> jax.Array:
    alpha, sigma = coefficients(schedule, t, like)
    return jnp.asarray(1 / sigma_data**2, alpha.dtype) + (alpha / sigma) ** 2

  return weight


def flow_weight(schedule: Schedule, t: jax.Array, like: jax.Array) -> jax.Array:
  """Flow matching's weight of the squared error in x0, ``1 / u^2`` with u = sigma / (alpha + sigma)."""
  alpha, sigma = coefficients(schedule, t, like)
  return (1 + alpha / sigma) ** 2
