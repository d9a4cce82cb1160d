r"""A bijective sampler: encoding and decoding undo each other to rounding, whatever the network.

The state is a pair of samples at successive levels. With DDIM's step from level t to another written
``move(t -> .)``, a step takes the pair at levels (r, t), r noisier, to the pair at (t, s):

    x_s = move(t -> s) + a * (x_r - move(t -> r))

DDIM's step, plus a times the error of DDIM's backward step from t to r, where x_r is known. The network is
asked once, at x_t, which both pairs contain. So the equation can also be solved for x_r: one evaluation, no
iteration. Two published methods are choices of a: `bdia` and `belm`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ddim_jax.denoisers import Denoiser
from ddim_jax.inversion import climb
from ddim_jax.parameterisation import Prediction
from ddim_jax.sampling import check_chain
from ddim_jax.schedules import Level, Schedule, coefficients
from ddim_jax.solvers import Solver

Coefficients = tuple[jax.Array, jax.Array]
"""``(alpha, sigma)`` at a level, of a shape that broadcasts to the samples."""
Weight = Callable[[Coefficients, Coefficients, Coefficients], jax.Array]
"""``(r, t, s) -> a``: the weight above, not 0, from the coefficients at the three levels."""


class Pair(NamedTuple):
  """The code of a batch: samples at the two noisiest levels.

  Attributes:
    x_T: At level ``ts[0]``, ``f32[B, ...]``.
    x_next: At level ``ts[1]``, the same shape.
  """

  x_T: jax.Array
  x_next: jax.Array


def bdia(gamma: float | jax.Array = 1.0) -> Weight:
  """``a = gamma``, traced: Zhang, Lewis and Kleijn, arXiv:2307.10829.

  With 1 the two directions are mirror images and neither amplifies errors by itself: the code of an
  image looks like noise. Less than 1 forgets the pair's second sample when decoding, and amplifies
  it by ``1 / gamma`` a step when encoding.
  """
  return lambda r, t, s: jnp.asarray(gamma, r[0].dtype)


def belm(r: Coefficients, t: Coefficients, s: Coefficients) -> jax.Array:
  r"""The weight of second order, :math:`a = (h_s / h_r)^2 \alpha_s / \alpha_r`, optimal in BELM.

  :math:`h_s` and :math:`h_r` are the distances from t to s and r in :math:`\sigma / \alpha`. Wang et al.,
  arXiv:2410.07273. Where steps shrink fast towards the data, a is small: decoding is stable, but encoding
  divides by it, and with few steps of DDPM's linear schedule the code of an image is far larger than noise.
  """
  ratio = lambda level: level[1] / level[0]
  found: jax.Array = ((ratio(t) - ratio(s)) / (ratio(r) - ratio(t))) ** 2 * s[0] / r[0]
  return found


def _move(prediction: Prediction, to: Coefficients) -> jax.Array:
  """DDIM's step to these coefficients."""
  return to[0] * prediction.x0 + to[1] * prediction.eps


def encode(
  denoise: Denoiser, schedule: Schedule, x0: jax.Array, ts: ArrayLike, *, weight: Weight | None = None
) -> Pair:
  """Turns data into a pair from which `decode` gives it back, exact to rounding.

  The pair is begun by a DDIM step up from ``x0``, with the network asked at level ``max(ts[-1], 1)``.

  Args:
    denoise: ``(x_t, t) -> Prediction``, any function at all.
    schedule: Noise schedule. Traced.
    x0: Samples at level ``ts[-1]``, ``f32[B, ...]``.
    ts: Decreasing levels, ``i32[S+1]``, S at least 2; values traced, S static.
    weight: ``bdia()`` by default.

  Returns:
    The pair. It has twice the size of ``x0``: a decoder that keeps ``x_T`` only (`bijective`) gives
    ``x0`` back with an error of the order of the method's, like plain inversion.

  Raises:
    ValueError: At trace time, on a wrong shape or dtype of ``x0`` or ``ts``, or S below 2.
  """
  denoise, levels = check_chain(denoise, schedule, x0, ts, "x0")
  _check_two_steps(levels)
  chosen = bdia() if weight is None else weight
  x_1 = climb(denoise, schedule, x0, levels[-1], levels[-2])

  def step(pair: Any, three: Any) -> Any:
    x_s, x_t = pair
    r, t, s = (coefficients(schedule, level, x_t) for level in three)
    prediction = denoise(x_t, three[1])
    x_r = _move(prediction, r) + (x_s - _move(prediction, s)) / chosen(r, t, s)
    return (x_t, x_r), None

  (x_next, x_T), _ = jax.lax.scan(step, (x0, x_1), (levels[:-2], levels[1:-1], levels[2:]), reverse=True)
  return Pair(x_T, x_next)


def decode(
  denoise: Denoiser, schedule: Schedule, pair: Pair, ts: ArrayLike, *, weight: Weight | None = None
) -> jax.Array:
  """The inverse of `encode`, with its arguments and errors: the sample at ``ts[-1]``, ``f32[B, ...]``."""
  denoise, levels = check_chain(denoise, schedule, pair.x_T, ts, "pair.x_T")
  _check_two_steps(levels)
  solver = bijective(weight)

  def step(state: Any, pair_of_levels: tuple[jax.Array, jax.Array]) -> Any:
    x_t, carry = state
    x_s, carry, _ = solver.step(denoise, schedule, carry, x_t, *pair_of_levels, jnp.zeros_like(x_t))
    return (x_s, carry), None

  start = pair.x_next, (jnp.array(False), coefficients(schedule, levels[0], pair.x_T), pair.x_T)
  decoded: jax.Array = jax.lax.scan(step, start, (levels[1:-1], levels[2:]))[0][0]
  return decoded


def bijective(weight: Weight | None = None) -> Solver:
  """The same steps as a solver for `ddim_jax.sample`, which begins the pair by a DDIM step from ``x_T``.

  Deterministic; one network evaluation per step, with ``bdia()`` of second order where step sizes change
  slowly.

  Args:
    weight: ``bdia()`` by default.
  """
  weight = bdia() if weight is None else weight

  def init(x: jax.Array) -> Any:
    # Before the first step there is nothing to remember: any coefficients that keep the weight finite.
    ones = jnp.ones((1,) * x.ndim, x.dtype)
    return jnp.array(True), (ones / 1024, ones), x

  def step(
    denoise: Denoiser, schedule: Schedule, carry: Any, x_t: jax.Array, t: Level, s: Level, z: jax.Array
  ) -> Any:
    first, level_r, x_r = carry
    level_t, level_s = (coefficients(schedule, level, x_t) for level in (t, s))
    prediction = denoise(x_t, t)
    correction = weight(level_r, level_t, level_s) * (x_r - _move(prediction, level_r))
    x_s = _move(prediction, level_s) + jnp.where(first, 0, correction)
    return x_s, (jnp.array(False), level_t, x_t), prediction

  return Solver(init, step)


def _check_two_steps(ts: jax.Array) -> None:
  if ts.shape[0] < 3:
    raise ValueError(f"ts must have at least two steps here, got {ts.shape[0] - 1}")
