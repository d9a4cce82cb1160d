"""Guidance: denoisers pushed towards a condition, by a second denoiser or by a log-probability."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ddim_jax.checks import check_finite, check_interval, check_range, check_whole
from ddim_jax.denoisers import Denoiser, checked
from ddim_jax.parameterisation import Parameterisation, Prediction, V
from ddim_jax.schedules import LOG_SNR_LIMIT, Level, Schedule, coefficients, log_snr_at, wide


def _weights(weight: ArrayLike, like: jax.Array) -> jax.Array:
  """A weight, or one per example, shaped and typed to multiply ``like``."""
  weight = jnp.asarray(weight, like.dtype)
  if weight.shape not in ((), (1,), like.shape[:1]):
    raise ValueError(f"weight must be a scalar or one per example, got {weight.shape} for x{like.shape}")
  return jnp.reshape(weight, weight.shape + (1,) * (like.ndim - weight.ndim))


def guide(
  conditional: Denoiser,
  unconditional: Denoiser,
  schedule: Schedule,
  weight: float | jax.Array,
  interval: tuple[float, float] = (-jnp.inf, jnp.inf),
  *,
  rescale: float | jax.Array = 0.0,
  parameterisation: Parameterisation = V,
) -> Denoiser:
  r"""Classifier-free guidance: ``eps_u + weight * (eps_c - eps_u)``, and the same for x0.

  Ho and Salimans [1]; their w is our ``weight - 1``. Weight 0 is unconditional, 1 conditional, more
  than 1 exaggerates the condition. Outside ``interval`` the conditional denoiser is used as it is [2].

  A large weight also makes the output too large (burnt-out images). ``rescale`` takes it back towards
  the standard deviation of the conditional output, section 3.4 of [3]:

  .. math:: o = o_g \,(1 - \phi + \phi\, \mathrm{std}(o_c) / \mathrm{std}(o_g))

  Args:
    conditional: Denoiser that knows the condition.
    unconditional: Denoiser that does not (or that knows a negative one).
    schedule: Noise schedule. Traced.
    weight: Guidance weight, ``f32[]`` or one per example ``f32[B]``. Traced.
    interval: ``(low, high)`` of log-SNR within which guidance acts. Traced.
    rescale: The :math:`\phi` above, ``f32[]`` or ``f32[B]`` in [0, 1]; 0 is none, [3] takes 0.7. Traced.
    parameterisation: The output :math:`o` whose standard deviation, over all axes but the batch, is
      matched: `V` as in [3]; diffusers takes whatever its network predicts.

  Returns:
    The guided denoiser; each call asks both denoisers once.

  Raises:
    ValueError: When called, if ``weight`` or ``rescale`` is neither a scalar nor one per example; at once, if
      they or ``interval`` are out of range and not traced.

  References:
    [1] arXiv:2207.12598. [2] Kynkaanniemi et al., arXiv:2404.07724. [3] Lin et al., arXiv:2305.08891.
  """

  conditional, unconditional = checked(conditional, schedule), checked(unconditional, schedule)
  check_finite("weight", weight)
  check_range("rescale", rescale, 0, 1)
  check_interval(interval)

  def guided(x_t: jax.Array, t: Level) -> Prediction:
    dtype, both = x_t.dtype, (conditional(x_t, t), unconditional(x_t, t))
    with_condition, without, x_t = jax.tree.map(lambda x: x.astype(wide(dtype)), (*both, x_t))
    log_snr = log_snr_at(schedule, t, x_t)
    inside = (interval[0] <= log_snr) & (log_snr <= interval[1])
    w = jnp.where(inside, _weights(weight, x_t), 1)
    towards = jax.tree.map(lambda c, u: u + w * (c - u), with_condition, without)
    alpha, sigma = coefficients(schedule, t, x_t)
    target = lambda prediction: parameterisation.target(*prediction, alpha, sigma)
    axes = tuple(range(1, x_t.ndim))
    std = lambda output: jnp.std(output, axis=axes, keepdims=True)
    output = target(towards)
    spread = std(output)
    ratio = jnp.where(spread > 0, std(target(with_condition)) / jnp.where(spread > 0, spread, 1), 1)
    # Added to the guided pair, so that rescale 0 leaves that as it is, to the bit.
    change = parameterisation.decode(output * (1 + _weights(rescale, x_t) * (ratio - 1)), x_t, alpha, sigma)
    same = parameterisation.decode(output, x_t, alpha, sigma)
    found: Prediction = jax.tree.map(
      lambda g, new, old: (g + (new - old)).astype(dtype), towards, change, same
    )
    return found

  return guided


def class_log_probability(
  classifier: Callable[[jax.Array, jax.Array], jax.Array], label: ArrayLike
) -> Callable[[jax.Array, jax.Array], jax.Array]:
  """Turns a classifier of noisy samples into ``log p(label | x_t)``, which `classifier_guide` takes.

  Levels are 1 to T here. A classifier of another project that counts them 0 to T - 1 is asked one lower,
  ``lambda x, t: theirs(x, t - 1)``; that of `ddim_jax.interop.load_adm_classifier` knows.

  Args:
    classifier: ``(x_t: f32[B, ...], t) -> f32[B, K]``: logits of K classes, differentiable.
    label: The class to guide to, ``i32[]``, or one for each example ``i32[B]``, in [0, K). Traced.

  Returns:
    ``(x_t, t) -> f32[B]``, in nats.

  Raises:
    ValueError: If the label is no integer; when called, if it is out of range and not traced, or neither one
      nor one for each example.
  """
  check_whole("label", label, 0, float("inf"))

  def log_probability(x_t: jax.Array, t: jax.Array) -> jax.Array:
    logits = classifier(x_t, t)
    check_whole("label", label, 0, logits.shape[-1] - 1)
    if np.shape(label) not in ((), (1,), logits.shape[:1]):
      raise ValueError(
        f"label must be one or one for each of {len(logits)} examples, got shape {np.shape(label)}"
      )
    chosen = jnp.broadcast_to(jnp.asarray(label), logits.shape[:1])
    return jnp.take_along_axis(jax.nn.log_softmax(logits, axis=-1), chosen[:, None], axis=-1)[:, 0]

  return log_probability


def classifier_guide(
  denoise: Denoiser,
  log_probability: Callable[[jax.Array, jax.Array], jax.Array],
  schedule: Schedule,
  weight: float | jax.Array = 1.0,
) -> Denoiser:
  r"""Guidance by the gradient of a log-probability: that of a classifier, or of anything else.

  .. math:: \hat\epsilon = \epsilon - w\, \sigma_t \nabla_{x_t} \log p(y \mid x_t)

  Algorithm 2 of [1]; `class_log_probability` makes the function of a classifier. With weight 1 and the true
  :math:`p(y \mid x_t)`, samples follow the data's distribution given y. A function that
  knows clean data only can be asked about the estimate of them,
  ``lambda x, t: log_p(denoise(x, t).x0)``, at the cost of a gradient through the network. At a level where
  nothing is left of the data, :math:`p(y \mid x_t) = p(y)`: there is nothing to follow, and no shift.

  Args:
    denoise: Denoiser to guide.
    log_probability: ``(x_t: f32[B, ...], t) -> f32[B]``, in nats; differentiable; close over y.
    schedule: Noise schedule. Traced.
    weight: Dimensionless, ``f32[]`` or one per example ``f32[B]``; 0 is none. Traced.

  Returns:
    The guided denoiser.

  Raises:
    ValueError: If ``weight`` is not finite and not traced; when called, if it is neither a scalar nor one per
      example, or ``log_probability`` returns no vector ``[B]``.

  References:
    [1] Dhariwal and Nichol, arXiv:2105.05233.
  """

  denoise = checked(denoise, schedule)
  check_finite("weight", weight)

  def guided(x_t: jax.Array, t: Level) -> Prediction:
    def total(x: jax.Array) -> jax.Array:
      values = log_probability(x, jnp.asarray(t))
      if values.shape != x.shape[:1]:
        raise ValueError(
          f"log_probability must return one value per example, [{x.shape[0]}], got {values.shape}"
        )
      return jnp.sum(values)

    dtype, gradient = x_t.dtype, jax.grad(total)(x_t)
    x0, eps, x, gradient = (part.astype(wide(dtype)) for part in (*denoise(x_t, t), x_t, gradient))
    alpha, sigma = coefficients(schedule, t, x)
    signal = log_snr_at(schedule, t, x) > -LOG_SNR_LIMIT
    shift = jnp.where(signal, _weights(weight, x) * sigma * gradient, 0)
    return Prediction((x0 + sigma / alpha * shift).astype(dtype), (eps - shift).astype(dtype))

  return guided
