r"""Likelihood: how probable data are under a model, in bits per dimension.

Two answers. The deterministic sampler is a differential equation, whose density follows from its
divergence: `ode_log_density`. The stochastic one is a chain of Gaussians, with a bound from below:
`variational_bound`. Both are for data in [-1, 1]; whole pixels of 256 values are `BIN` apart.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ddim_jax.checks import check_range, check_whole
from ddim_jax.denoisers import Denoiser
from ddim_jax.process import add_noise
from ddim_jax.sampling import check_chain
from ddim_jax.schedules import Schedule, coefficients, log_snr_at, wide
from ddim_jax.seeds import check_keys, draw_noise

BIN = 2 / 255
"""Distance between neighbouring values of an 8-bit image in [-1, 1]."""

Field = Callable[[jax.Array], jax.Array]
"""``f32[B, ...] -> f32[B, ...]``, examples apart from each other."""
_sum = jax.vmap(jnp.sum)
"""Of each example of a batch."""
Divergence = Callable[..., tuple[jax.Array, jax.Array]]
"""``(f, x: f32[B, ...], key) -> (f(x), divergence of f at x: f32[B])``, examples apart from each other."""


def bits_per_dimension(nats: jax.Array, shape: tuple[int, ...], bin_width: float = 1.0) -> jax.Array:
  """Negative log-likelihoods in bits per dimension.

  Args:
    nats: Negative log-probability or log-density of every example, ``f32[B]``.
    shape: Shape of the batch, ``(B, ...)``.
    bin_width: For densities: the volume of a value, such as `BIN`; 1 for probabilities.
  """
  return (nats / math.prod(shape[1:]) - math.log(bin_width)) / math.log(2)


def dequantise(key: jax.Array, x0: jax.Array, bin_width: float = BIN) -> jax.Array:
  """Adds uniform noise as wide as a bin: a density of the result bounds the probability of the pixels."""
  return x0 + jnp.asarray(bin_width, x0.dtype) * (jax.random.uniform(key, x0.shape, x0.dtype) - 0.5)


def exact_divergence(f: Field, x: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The trace of the Jacobian, a column at a time: as many products as an example has elements."""
  value, derivative = jax.linearize(f, x)
  size = math.prod(x.shape[1:])

  def column(i: jax.Array) -> jax.Array:
    basis = jnp.broadcast_to(jnp.zeros(size, x.dtype).at[i].set(1).reshape(1, *x.shape[1:]), x.shape)
    return _sum(basis * derivative(basis))

  return value, jnp.sum(jax.lax.map(column, jnp.arange(size)), axis=0)


def hutchinson(probes: int = 1) -> Divergence:
  """An unbiased estimate of the divergence: the mean of ``v . J v`` over random signs v.

  Args:
    probes: Number of v, one Jacobian product each. Static.

  Raises:
    ValueError: If ``probes`` is not positive.

  References:
    Grathwohl et al., arXiv:1810.01367.
  """
  check_whole("probes", probes, 1, math.inf)

  def divergence(f: Field, x: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    value, derivative = jax.linearize(f, x)

    def one(i: jax.Array) -> jax.Array:
      signs = jnp.sign(draw_noise(key, i, x.shape, x.dtype))
      return _sum(signs * derivative(signs))

    return value, jnp.mean(jax.lax.map(one, jnp.arange(probes)), axis=0)

  return divergence


def ode_log_density(
  key: jax.Array,
  denoise: Denoiser,
  schedule: Schedule,
  x0: jax.Array,
  ts: ArrayLike,
  *,
  divergence: Divergence = exact_divergence,
) -> tuple[jax.Array, jax.Array]:
  r"""Log-density of data under the deterministic sampler in the limit of many steps.

  In the angle :math:`\phi = \arctan(\sigma / \alpha)` the sampler is
  :math:`dx / d\phi = v(x, \phi) = \alpha \hat\epsilon - \sigma \hat x_0`, and

  .. math:: \log p(x_0) = \log \mathcal N(x_T; 0, I) + \int_0^{\phi_T} \nabla \cdot v \, d\phi,

  integrated with Heun's method, an error of second order in 1/S and two evaluations of the network and
  its derivative a step. At level 0, where no network is trained, the velocity is 0 as for any smooth density.

  Args:
    key: One key, or one per image; for random divergences. Traced.
    denoise: ``(x_t, t) -> Prediction``, without clipping; examples must not depend on each other.
    schedule: Noise schedule, at whose level ``ts[0]`` next to nothing is left of the data. Traced.
    x0: Data in data units, ``f32[B, ...]``; pixels after `dequantise`.
    ts: Decreasing levels ``i32[S+1]``, from T to 0; values traced, S static.
    divergence: `exact_divergence` or ``hutchinson(probes)``. Static.

  Returns:
    ``(log_density: f32[B], x_T)``, in nats per example; see `bits_per_dimension`.

  Raises:
    ValueError: At trace time, on a wrong shape or dtype of ``key``, ``x0`` or ``ts``.

  References:
    Song et al., arXiv:2011.13456, section 4.3.
  """
  (denoise, ts), keys = check_chain(denoise, schedule, x0, ts, "x0"), check_keys(key, x0.shape)
  x0 = x0.astype(wide(x0.dtype))  # sums over many values

  def velocity(x: jax.Array, t: jax.Array, draw: Any) -> Any:
    fold = jax.vmap(jax.random.fold_in, in_axes=(0, None)) if keys.ndim else jax.random.fold_in
    t = jnp.maximum(t, 1)
    alpha, sigma = coefficients(schedule, t, x)

    def field(x: jax.Array) -> jax.Array:
      prediction = denoise(x, t)
      return alpha * prediction.eps - sigma * prediction.x0

    return divergence(field, x, fold(keys, draw))

  def started(s: jax.Array, velocity_and_change: Any) -> Any:
    # eps is -sigma times the score, so that at level 0 of any smooth density the velocity is 0.
    return jax.tree.map(lambda v: jnp.where(s > 0, v, 0), velocity_and_change)

  angle = lambda t: jnp.arctan(jnp.exp(-0.5 * log_snr_at(schedule, t, x0))).astype(x0.dtype)

  def step(state: Any, inputs: Any) -> Any:
    x, total = state
    s, t, draw = inputs
    h = angle(t) - angle(s)
    v_s, change_s = started(s, velocity(x, s, 2 * draw))
    v_t, change_t = velocity(x + h * v_s, t, 2 * draw + 1)
    return (x + h / 2 * (v_s + v_t), total + h.reshape(-1) / 2 * (change_s + change_t)), None

  draws = jnp.arange(ts.shape[0] - 1)
  (x_T, total), _ = jax.lax.scan(step, (x0, jnp.zeros(x0.shape[0], x0.dtype)), (ts[:0:-1], ts[-2::-1], draws))
  return total + _sum(jax.scipy.stats.norm.logpdf(x_T)), x_T


class Bound(NamedTuple):
  """Terms of the variational bound, in nats per example; their sum bounds ``-log p(x0)``.

  Attributes:
    prior: What is left of the data at level ``ts[0]``, ``f32[B]``.
    levels: Divergence of every step but the last, in the order of ``ts``, ``f32[S-1, B]``.
    decoder: The last step, ``f32[B]``.
  """

  prior: jax.Array
  levels: jax.Array
  decoder: jax.Array

  @property
  def total(self) -> jax.Array:
    """The bound, ``f32[B]``."""
    return self.prior + jnp.sum(self.levels, axis=0) + self.decoder


def discretised_gaussian(x: jax.Array, mean: jax.Array, std: jax.Array, bin_width: float = BIN) -> jax.Array:
  """Log-probability that a normal variable falls into the bin around ``x``; the outermost bins are open.

  Equation (13) of DDPM, arXiv:2006.11239, for data in [-1, 1]; without cancellation in the tails.
  """
  above = jnp.where(x > 1 - bin_width / 2, jnp.inf, (x + bin_width / 2 - mean) / std)
  below = jnp.where(x < -1 + bin_width / 2, -jnp.inf, (x - bin_width / 2 - mean) / std)
  right = x > mean  # mirrored, so that both ends are in the lower tail
  upper, lower = jnp.where(right, -below, above), jnp.where(right, -above, below)
  upper, lower = jax.scipy.special.log_ndtr(upper), jax.scipy.special.log_ndtr(lower)
  return upper + jnp.log(-jnp.expm1(lower - upper))


def variational_bound(
  key: jax.Array,
  denoise: Denoiser,
  schedule: Schedule,
  x0: jax.Array,
  ts: ArrayLike,
  *,
  share: float | jax.Array = 0.0,
  decoder_std: float | jax.Array | None = None,
  bin_width: float = BIN,
) -> Bound:
  r"""The bound on ``-log p(x0)`` of ancestral sampling (eta = 1), one random draw of x_t a level.

  With :math:`\tilde\beta` the variance of the posterior :math:`q(x_s | x_t, x_0)` and
  :math:`r = \log(\mathrm{variance} / \tilde\beta)`, the step from t to s costs

  .. math::
    \tfrac12 \textstyle\sum \bigl[ r + e^{-r} - 1
      + e^{-r} (\mathrm{SNR}_s - \mathrm{SNR}_t) (x_0 - \hat x_0)^2 \bigr].

  Args:
    key: One key, or one per image. Traced.
    denoise: ``(x_t, t) -> Prediction``; clipping is allowed.
    schedule: Noise schedule. Traced.
    x0: Data in [-1, 1], on a grid of ``bin_width``, ``f32[B, ...]``.
    ts: Decreasing levels ``i32[S+1]``, ending at 0; values traced, S static.
    share: Variance of a step, in [0, 1]: 0 is the posterior's, 1 is beta, the "large" one; between
      them the logarithm is mixed. Traced.
    decoder_std: Standard deviation of the last step; :math:`\sqrt{\beta_1}` in [1], sigma at the last
      noisy level, by default. Traced.
    bin_width: Distance between values of the data.

  Returns:
    The terms; `bits_per_dimension` of ``total`` is the usual figure.

  Raises:
    ValueError: At trace time, on a wrong shape or dtype of ``key``, ``x0`` or ``ts``, or a wrong ``share``.

  References:
    [1] Ho, Jain, Abbeel. Denoising Diffusion Probabilistic Models, arXiv:2006.11239, section 3.
  """
  (denoise, ts), keys = check_chain(denoise, schedule, x0, ts, "x0"), check_keys(key, x0.shape)
  check_range("share", share, 0, 1)
  x0 = x0.astype(wide(x0.dtype))  # sums over many values
  predict = lambda t, draw: (
    denoise(add_noise(schedule, x0, draw_noise(keys, draw, x0.shape, x0.dtype), t), t).x0
  )
  snr = lambda t: log_snr_at(schedule, t, x0).astype(x0.dtype)

  def step(_: Any, inputs: Any) -> Any:
    t, s, draw = inputs
    # log(beta / posterior variance) is log(sigma_t^2 / sigma_s^2).
    r = jnp.asarray(share, x0.dtype) * (jax.nn.log_sigmoid(-snr(t)) - jax.nn.log_sigmoid(-snr(s)))
    weight = jnp.exp(snr(s) - r) * -jnp.expm1(snr(t) - snr(s))
    return None, _sum((r + jnp.expm1(-r) + weight * (x0 - predict(t, draw)) ** 2) / 2)

  draws = jnp.arange(ts.shape[0] - 1)
  _, levels = jax.lax.scan(step, None, (ts[:-2], ts[1:-1], draws[:-1]))
  alpha, _ = coefficients(schedule, ts[0], x0)
  prior = _sum(alpha**2 * (x0**2 - 1) - jax.nn.log_sigmoid(-snr(ts[0]))) / 2
  std = coefficients(schedule, ts[-2], x0)[1] if decoder_std is None else jnp.asarray(decoder_std, x0.dtype)
  return Bound(prior, levels, -_sum(discretised_gaussian(x0, predict(ts[-2], draws[-1]), std, bin_width)))
