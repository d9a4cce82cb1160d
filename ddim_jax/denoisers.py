"""Denoisers: callables ``(x_t, t) -> Prediction``, and functions that make one from another.

The sampler knows nothing else of a model. Clipping, guidance (`ddim_jax.guidance`) and measurements
(`ddim_jax.inverse_problems`) are denoisers wrapped around denoisers; each keeps the pair consistent,
``x_t = alpha * x0 + sigma * eps``.
"""

from collections.abc import Callable
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ddim_jax.checks import check_floating, check_numbers, check_range, known
from ddim_jax.parameterisation import EPS, Parameterisation, Prediction
from ddim_jax.schedules import LOG_SNR_LIMIT, Level, Schedule, check_schedule, coefficients, wide


class Denoiser(Protocol):
  """Any function of a noisy batch and its level that estimates what it was made of."""

  def __call__(self, x_t: jax.Array, t: Level, /) -> Prediction:
    """The estimate.

    Args:
      x_t: Samples at level ``t``, ``f32[B, ...]``.
      t: Their level in [1, T], ``i32[]`` or ``i32[B]``, or real where the network takes real levels. Traced.
    """


def checked(denoise: Any, schedule: Any) -> Any:
  """The denoiser, which says so where it returns something else than a prediction.

  Raises:
    ValueError: If the arguments are something else, such as in another order.
  """
  check_schedule(schedule)
  hint = "; ddim_jax.as_denoiser makes one of a network"
  if isinstance(denoise, nn.Module) or not callable(denoise):
    kind = type(denoise).__name__
    raise ValueError(f"denoise must be a function (x_t, t) -> Prediction, got {kind}{hint}")  # noqa: TRY004

  def call(x_t: jax.Array, t: Level) -> Prediction:
    found = denoise(x_t, t)
    if not isinstance(found, Prediction):
      kind = "an array" if isinstance(found, jax.Array) else type(found).__name__
      raise ValueError(f"denoise must return a Prediction, got {kind}{hint}")  # noqa: TRY004
    return found

  return call


def ends_in_noise(schedule: Schedule) -> bool:
  """Whether nothing is left of the data at the last level, as far as that is known of a traced schedule."""
  log_snr = known(schedule.log_snr)
  return log_snr is not None and bool(log_snr[-1] <= -LOG_SNR_LIMIT)


def check_signal(schedule: Schedule, parameterisation: Parameterisation) -> None:
  """Raises ValueError for eps at a last level without signal, where it says nothing about x0.

  Only a schedule that is not traced can be checked.
  """
  if parameterisation is EPS and ends_in_noise(schedule):
    raise ValueError(
      "parameterisation must be V, X0, EDM or FLOW for this schedule, got EPS: nothing is left of the data at"
      f" level {schedule.T} (zero terminal SNR), where eps does not determine x0"
    )


def as_denoiser(
  network: Callable[[jax.Array, jax.Array], Any],
  schedule: Schedule,
  parameterisation: Parameterisation = EPS,
) -> Denoiser:
  """Turns a network into a denoiser.

  Args:
    network: ``(x_t, t) -> output`` of the shape of ``x_t``; close over parameters, labels and so on.
    schedule: The schedule the network was trained with. Traced.
    parameterisation: What ``output`` means: `EPS`, `X0`, `V`, `EDM` or `FLOW`. Networks of the last two that
      were trained elsewhere also want their input scaled: see `ddim_jax.paths`.

  Returns:
    ``(x_t: f32[B, ...], t: i32[] or i32[B]) -> Prediction``, in the dtype of ``x_t``.

  Raises:
    ValueError: For `EPS` and a schedule that is not traced and has no signal at its last level; when called,
      at trace time, if the output has another shape than ``x_t``.
  """
  check_schedule(schedule)
  check_signal(schedule, parameterisation)
  if not callable(network) or (isinstance(network, nn.Module) and network.scope is None):
    raise ValueError(
      "network must be a function (x_t, t) -> output, such as lambda x, t: unet.apply(variables, x, t), got"
      f" {type(network).__name__}"
    )
  call = _in_any_trace(network)

  def denoise(x_t: jax.Array, t: Level) -> Prediction:
    check_floating("x_t", x_t)
    output = call(x_t, t)
    if not hasattr(output, "shape"):
      raise ValueError(f"the network must return one array, got {type(output).__name__}")
    if output.shape != x_t.shape:
      raise ValueError(
        f"the network must return the shape of x_t, {x_t.shape}, got {output.shape}"
        " (a network that also predicts variances: pass the first half of its channels)"
      )
    x = x_t.astype(wide(x_t.dtype))
    x0, eps = parameterisation.decode(output.astype(x.dtype), x, *coefficients(schedule, t, x))
    return Prediction(x0.astype(x_t.dtype), eps.astype(x_t.dtype))

  return denoise


def _in_any_trace(network: Callable[..., Any]) -> Callable[..., Any]:
  """An NNX module as a function: it may count random numbers, which only a copy of the same trace can."""
  if type(network).__module__.split(".")[0] != "flax" and not hasattr(network, "sow"):
    return network
  from flax import nnx

  if not isinstance(network, nnx.Module):
    return network
  graph, state = nnx.split(network)
  return lambda x, t: nnx.merge(graph, jax.tree.map(lambda leaf: leaf, state))(x, t)


def with_x0(x0: jax.Array, x_t: jax.Array, t: Level, schedule: Schedule) -> Prediction:
  """The prediction with this x0, its eps derived again: ``eps = (x_t - alpha * x0) / sigma``.

  Args:
    x0: Estimate of the clean data, ``f32[B, ...]``.
    x_t: The sample that it was made from, of the same shape.
    t: Its level, ``i32[]`` or ``i32[B]``, at least 1. Traced.
    schedule: Noise schedule. Traced.
  """
  x = x_t.astype(wide(x_t.dtype))
  alpha, sigma = coefficients(schedule, t, x)
  return Prediction(x0, ((x - alpha * x0.astype(x.dtype)) / sigma).astype(x_t.dtype))


def clip_x0(denoise: Denoiser, schedule: Schedule, low: float = -1.0, high: float = 1.0) -> Denoiser:
  """Clips the predicted x0 to ``[low, high]`` (data units, traced) and derives eps from it again.

  Raises:
    ValueError: If ``low`` is above ``high`` and neither is traced.
  """
  denoise, lowest, highest = checked(denoise, schedule), known(low), known(high)
  check_numbers(low=low, high=high)
  if lowest is not None and highest is not None and not np.all(lowest <= highest):
    raise ValueError(f"low must be at most high, got {low} and {high}")

  def clipped(x_t: jax.Array, t: Level) -> Prediction:
    x0 = denoise(x_t, t).x0
    ends = (jnp.asarray(end, x0.dtype) for end in (low, high))
    return with_x0(jnp.clip(x0, *ends), x_t, t, schedule)

  return clipped


def dynamic_threshold(
  denoise: Denoiser, schedule: Schedule, quantile: float = 0.995, maximum: float = jnp.inf
) -> Denoiser:
  """Clips x0 at a quantile of its own magnitude and scales it back to [-1, 1].

  Section 2.3 of Imagen, arXiv:2205.11487. Per example, the bound is the ``quantile`` of ``|x0|``, at
  least 1 and at most ``maximum``, which prevails where it is less than 1; both are traced.

  Raises:
    ValueError: If ``quantile`` is outside [0, 1] or ``maximum`` negative, and not traced.
  """
  denoise = checked(denoise, schedule)
  check_range("quantile", quantile, 0, 1)
  check_range("maximum", maximum, 0, jnp.inf)

  def thresholded(x_t: jax.Array, t: Level) -> Prediction:
    x0 = denoise(x_t, t).x0
    axes = tuple(range(1, x0.ndim))
    bound = jnp.quantile(jnp.abs(x0), quantile, axis=axes, keepdims=True).astype(x0.dtype)
    bound = jnp.clip(bound, 1.0, jnp.asarray(maximum, x0.dtype))
    return with_x0(jnp.clip(x0, -bound, bound) / bound, x_t, t, schedule)

  return thresholded
