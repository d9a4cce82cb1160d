"""Inverse problems: samples that agree with a measurement ``y = A x``.

A denoiser's estimate of the clean data is projected onto the data that fit the measurement. Only the
part that the measurement does not see is the model's; the last step lands on data that fit to rounding.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ddim_jax.checks import check_floating, check_whole
from ddim_jax.denoisers import Denoiser, checked, with_x0
from ddim_jax.parameterisation import Prediction
from ddim_jax.process import renoise
from ddim_jax.schedules import Level, Schedule
from ddim_jax.solvers import Solver, ddim
from ddim_jax.solvers.base import Stepped, check_solver


class LinearOperator(NamedTuple):
  """A linear map A of batches and a generalised inverse of it.

  Attributes:
    apply: ``x: f32[B, ...] -> y``: the measurement A x.
    pseudo_inverse: ``y -> x``, linear, with ``A(A^+(A x)) = A x``.
  """

  apply: Callable[[jax.Array], jax.Array]
  pseudo_inverse: Callable[[jax.Array], jax.Array]


def masked(mask: ArrayLike) -> LinearOperator:
  """What is seen of ``x`` through a mask, ``mask * x``: an orthogonal projection, its own inverse.

  Args:
    mask: True where the data are seen, ``bool`` of a shape that broadcasts to ``x``.

  Raises:
    ValueError: When applied, if the mask is not bool or does not broadcast.
  """

  def see(x: jax.Array) -> jax.Array:
    return jnp.where(_broadcast("mask", mask, x), x, 0)

  return LinearOperator(see, see)


def super_resolution(factor: int) -> LinearOperator:
  """The mean over blocks of ``factor x factor`` pixels of images ``[B, H, W, C]``; repeats each pixel back.

  Raises:
    ValueError: If ``factor`` is not a positive integer; when applied, if it does not divide H and W.
  """
  check_whole("factor", factor, 1, np.inf)

  def apply(x: jax.Array) -> jax.Array:
    if x.ndim != 4 or x.shape[1] % factor or x.shape[2] % factor:
      raise ValueError(
        f"super_resolution({factor}) needs [B, H, W, C] with H and W multiples of it, got {x.shape}"
      )
    batch, height, width, channels = x.shape
    blocks = x.reshape(batch, height // factor, factor, width // factor, factor, channels)
    return blocks.mean(axis=(2, 4))

  def pseudo_inverse(y: jax.Array) -> jax.Array:
    return jnp.repeat(jnp.repeat(y, factor, axis=1), factor, axis=2)

  return LinearOperator(apply, pseudo_inverse)


def colourisation(weights: tuple[float, ...] = (1 / 3, 1 / 3, 1 / 3)) -> LinearOperator:
  """Grey values of colour images: the weighted sum over the last axis.

  Args:
    weights: Weight of every channel, not all 0; ``(0.299, 0.587, 0.114)`` is the luma of JPEG. Static.

  Raises:
    ValueError: If all weights are 0; when applied, if there are not as many channels.
  """
  weights = tuple(float(w) for w in weights)  # numbers of numpy would widen what they meet
  energy = sum(w * w for w in weights)
  if not 0 < energy < float("inf"):
    raise ValueError(f"weights must be finite and not all 0, got {weights}")

  def apply(x: jax.Array) -> jax.Array:
    if x.shape[-1] != len(weights):
      raise ValueError(f"colourisation has {len(weights)} weights, got x{x.shape}")
    return jnp.stack([w * x[..., i] for i, w in enumerate(weights)]).sum(axis=0)[..., None]

  def pseudo_inverse(y: jax.Array) -> jax.Array:
    return jnp.concatenate([y * (w / energy) for w in weights], axis=-1)

  return LinearOperator(apply, pseudo_inverse)


def compose(outer: LinearOperator, inner: LinearOperator) -> LinearOperator:
  """The measurement ``outer`` of the measurement ``inner``.

  ``inner`` must lose nothing of its output, ``A(A^+ y) = y``, as `super_resolution` and `colourisation`
  do: then the composed inverse is one.
  """
  return LinearOperator(
    apply=lambda x: outer.apply(inner.apply(x)),
    pseudo_inverse=lambda y: inner.pseudo_inverse(outer.pseudo_inverse(y)),
  )


def _broadcast(name: str, value: ArrayLike, like: jax.Array) -> jax.Array:
  value = jnp.asarray(value)
  if name == "mask" and value.dtype != jnp.bool_:
    raise ValueError(f"mask must be bool, got {value.dtype}")
  try:
    return jnp.broadcast_to(value, like.shape)
  except ValueError as error:
    raise ValueError(f"{name} must broadcast to the samples, {like.shape}, got {value.shape}") from error


def inpaint(denoise: Denoiser, mask: ArrayLike, known: jax.Array, schedule: Schedule) -> Denoiser:
  """Keeps what is known of the data: ``x0 = known`` where the mask is True, and eps to match.

  On its own this draws the rest with too little regard for what is known, since each step sees the
  unknown part as it was drawn without it. `repaint` along `ddim_jax.timesteps.repaint` mends that.

  Args:
    denoise: Denoiser of whole samples. Put `clip_x0` and guidance inside, not around.
    mask: True where known, ``bool`` of a shape that broadcasts to the samples. Traced.
    known: The data, in data units, of a shape that broadcasts; ignored where ``mask`` is False. Traced.
    schedule: Noise schedule. Traced.

  Returns:
    A denoiser whose samples equal ``known`` under the mask.

  Raises:
    ValueError: If ``known`` is not floating point; when called, if the mask is not bool, or a shape does not
      broadcast.

  References:
    Lugmayr et al., RePaint, arXiv:2201.09865, with the known part noised by the sample's own noise.
  """
  check_floating("known", known)
  denoise = checked(denoise, schedule)

  def inpainted(x_t: jax.Array, t: Level) -> Prediction:
    seen, given = _broadcast("mask", mask, x_t), _broadcast("known", known, x_t)
    return with_x0(jnp.where(seen, given.astype(x_t.dtype), denoise(x_t, t).x0), x_t, t, schedule)

  return inpainted


def constrain(
  denoise: Denoiser, measurement: jax.Array, operator: LinearOperator, schedule: Schedule
) -> Denoiser:
  r"""Makes samples fit a noiseless linear measurement y, as DDNM does.

  .. math:: \hat x_0 \leftarrow \hat x_0 + A^+ (y - A \hat x_0)

  Args:
    denoise: Denoiser of whole samples. Put `clip_x0` and guidance inside: around, they would undo it.
    measurement: y, of the shape of ``operator.apply(x)``, in data units. Traced.
    operator: `masked`, `super_resolution`, `colourisation`, `compose`, or any other.
    schedule: Noise schedule. Traced.

  Returns:
    A denoiser whose samples satisfy ``A x = y`` to rounding.

  Raises:
    ValueError: If the measurement is not floating point; when called, if it is not of the operator's shape.

  References:
    Equation (13) of Wang et al., arXiv:2212.00490.
  """
  check_floating("measurement", measurement)
  denoise = checked(denoise, schedule)

  def constrained(x_t: jax.Array, t: Level) -> Prediction:
    x0 = denoise(x_t, t).x0
    seen = operator.apply(x0)
    if jnp.shape(measurement) != seen.shape:
      raise ValueError(
        f"measurement must be {seen.shape}, as operator.apply gives, got {jnp.shape(measurement)}"
      )
    missing = jnp.asarray(measurement, x0.dtype) - seen
    return with_x0(x0 + operator.pseudo_inverse(missing), x_t, t, schedule)

  return constrained


def repaint(solver: Solver | None = None) -> Solver:
  """A solver that also goes up: a step to a noisier level adds fresh noise, as the forward process does.

  Down, the step is the given solver's. Up, no network is asked, and a multi-step solver forgets its
  past. Along the levels of `ddim_jax.timesteps.repaint` this is RePaint's resampling: known and unknown
  parts, noised and denoised together several times, come to fit each other.

  Args:
    solver: For the steps down; `ddim()` by default. RePaint takes ``ddim(eta=1)``.

  Returns:
    A solver. On a step up, ``prediction`` is that of the step before.

  References:
    Algorithm 1 of Lugmayr et al., arXiv:2201.09865.
  """
  solver = ddim() if solver is None else solver
  check_solver(solver)

  def init(x: jax.Array) -> Any:
    return solver.init(x), (jnp.zeros_like(x), jnp.zeros_like(x))

  def step(
    denoise: Denoiser, schedule: Schedule, carry: Any, x_t: jax.Array, t: Level, s: Level, z: jax.Array
  ) -> Stepped:
    def down() -> Any:
      x_s, inner, prediction = solver.step(denoise, schedule, carry[0], x_t, t, s, z)
      return x_s, (inner, tuple(prediction))

    def up() -> Any:
      return renoise(schedule, x_t, z if solver.draws == 1 else z[0], t, s), (solver.init(x_t), carry[1])

    x_s, carry = jax.lax.cond(jnp.asarray(s) > jnp.asarray(t), up, down)
    return x_s, carry, Prediction(*carry[1])

  return Solver(init, step, rises=True, draws=solver.draws)
