"""The reverse process: one ``jax.lax.scan`` over a sequence of levels.

Nothing here is jitted. Jit the function that builds the denoiser and calls `sample`, so that
parameters, schedule, eta, guidance weights, levels and keys are traced: another number of steps
compiles anew (unless the levels are padded: see ``count``), new values of anything else do not.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ddim_jax.checks import check_decreasing, check_range, check_whole
from ddim_jax.denoisers import Denoiser, checked
from ddim_jax.parameterisation import Prediction
from ddim_jax.schedules import Schedule, wide
from ddim_jax.seeds import check_keys, step_noise
from ddim_jax.solvers import Solver, ddim
from ddim_jax.solvers.base import check_solver


class Step(NamedTuple):
  """What ``observe`` sees of one step.

  Attributes:
    t: Level left, ``i32[]`` or ``f32[]``, as in ``ts``.
    s: Level reached, likewise.
    x_t: Sample at ``t``, ``f32[B, ...]``.
    x_s: Sample at ``s``, ``f32[B, ...]``.
    prediction: The denoiser's estimate at ``t``.
  """

  t: jax.Array
  s: jax.Array
  x_t: jax.Array
  x_s: jax.Array
  prediction: Prediction


def check_levels(x: jax.Array, ts: ArrayLike, name: str, schedule: Schedule) -> jax.Array:
  """The levels as an array; ValueError unless they are the schedule's and ``x``, called ``name``, a batch."""
  if x.ndim < 1 or not jnp.issubdtype(x.dtype, jnp.floating):
    raise ValueError(f"{name} must be a floating-point batch [B, ...], got {x.dtype}{x.shape}")
  ts = ts if isinstance(ts, jax.Array) else np.asarray(ts)
  number = jnp.issubdtype(ts.dtype, jnp.integer) or jnp.issubdtype(ts.dtype, jnp.floating)
  if ts.ndim != 1 or ts.shape[0] < 2 or not number:
    raise ValueError(
      f"ts must be a vector of at least two levels, integer or floating, got {ts.dtype}{ts.shape}"
    )
  check_range("ts", ts, 0, schedule.T)
  return jnp.asarray(ts)


def check_chain(
  denoise: Any, schedule: Any, x: jax.Array, ts: ArrayLike, name: str
) -> tuple[Denoiser, jax.Array]:
  """The denoiser and the levels as an array; ValueError as `checked` and `check_levels`."""
  return checked(denoise, schedule), check_levels(x, ts, name, schedule)


def sample(
  key: jax.Array,
  denoise: Denoiser,
  schedule: Schedule,
  x_T: jax.Array,
  ts: ArrayLike,
  *,
  solver: Solver | None = None,
  observe: Callable[[Step], Any] | None = None,
  remat: bool = False,
  count: int | jax.Array | None = None,
) -> tuple[jax.Array, Any]:
  """Runs the reverse process from ``x_T`` at level ``ts[0]`` to level ``ts[-1]``.

  Args:
    key: One key for the batch, or one per image (``key[B]``): then every image's noise is its own,
      whatever the batch. Traced.
    denoise: ``(x_t, t) -> Prediction``, see `as_denoiser`.
    schedule: Noise schedule. Traced.
    x_T: Where to start, ``f32[B, ...]`` of any rank: `initial_noise`, or for image to image
      `add_noise` at ``ts[0]``.
    ts: Decreasing levels ``i32[S+1]`` or ``f32[S+1]`` (for networks that take real levels), see
      `ddim_jax.timesteps`; values traced, S static.
    solver: Rule for one step; `ddim()` by default.
    observe: ``(Step) -> pytree``: its results are stacked along a new first axis of length S. None
      stores nothing, so that memory does not grow with S.
    remat: Recompute each step when differentiating: memory holds S samples instead of S networks'
      activations, for one more evaluation per step. Static.
    count: Number of steps to take, ``i32[]`` in [0, S], traced: the rest of ``ts`` is padding (see
      `ddim_jax.timesteps.pad`), whose steps evaluate nothing and whose observations are zeros. None
      takes all. Under ``vmap`` over ``count`` itself, every step is evaluated.

  Returns:
    ``(x_0, observed)``: the sample, ``f32[B, ...]``, and the stacked observations (None without).

  Raises:
    ValueError: At trace time, on a wrong shape or dtype of ``key``, ``x_T`` or ``ts``, or on another object
      in place of a denoiser, schedule or solver; or if values that are not traced are out of range: levels
      that do not decrease, ``count``.

  References:
    Section 4 of Song, Meng, Ermon. Denoising Diffusion Implicit Models, arXiv:2010.02502.
  """
  solver = ddim() if solver is None else solver
  check_solver(solver)
  given, (denoise, ts) = ts, check_chain(denoise, schedule, x_T, ts, "x_T")
  keys = check_keys(key, x_T.shape)
  if not solver.rises:
    check_decreasing(given, schedule.T)
  if count is not None:
    check_whole("count", count, 0, ts.shape[0] - 1)

  def step(state: Any, inputs: Any) -> Any:
    x_t, carry = state
    draw, t, s = inputs
    z = step_noise(keys, draw, solver.draws, x_t.shape, x_t.dtype)
    x_s, carry, prediction = solver.step(denoise, schedule, carry, x_t, t, s, z)
    seen = None if observe is None else observe(Step(t, s, x_t, x_s, prediction))
    return (x_s, carry), seen

  def step_or_stay(state: Any, inputs: Any) -> Any:
    nothing = None
    if observe is not None:
      nothing = jax.tree.map(jnp.zeros_like, jax.eval_shape(step, state, inputs)[1])
    return jax.lax.cond(inputs[0] <= wanted, step, lambda state, _: (state, nothing), state, inputs)

  # prevent_cse is for code outside a loop; a scan needs no such barrier.
  advance = step if count is None else step_or_stay
  advance = jax.checkpoint(advance, prevent_cse=False) if remat else advance
  draws = jnp.arange(1, ts.shape[0])
  wanted = None if count is None else jnp.asarray(count, draws.dtype)
  (x_0, _), observed = jax.lax.scan(advance, (x_T, solver.init(x_T)), (draws, ts[:-1], ts[1:]))
  return x_0, observed


def slerp(a: jax.Array, b: jax.Array, w: ArrayLike) -> jax.Array:
  """Moves along the great circle from ``a`` (w = 0) to ``b`` (w = 1), example by example.

  Between two normal noises this keeps the norm, which a straight line does not. Appendix D.5 of
  arXiv:2010.02502. Where the two are parallel or opposite it is a straight line.

  Args:
    a: ``f32[B, ...]``.
    b: The same shape.
    w: Weight in [0, 1], ``f32[]`` or ``f32[B]``. Traced.

  Raises:
    ValueError: At trace time, if the shapes differ or there is no batch axis; or if a weight that is not
      traced is outside [0, 1].
  """
  if a.shape != b.shape or a.ndim < 1:
    raise ValueError(f"a and b must be batches of the same shape, got {a.shape} and {b.shape}")
  check_range("w", w, 0, 1)
  axes, dtype = tuple(range(1, a.ndim)), a.dtype
  a, b = (x.astype(wide(dtype)) for x in (a, b))
  w = jnp.asarray(w, a.dtype)
  if w.shape not in ((), (1,), a.shape[:1]):
    raise ValueError(f"w must be a number or one for each of {a.shape[0]} examples, got shape {w.shape}")
  w = jnp.reshape(w, w.shape + (1,) * (a.ndim - w.ndim))
  dot = lambda x, y: jnp.sum(x * y, axis=axes, keepdims=True)
  norms = dot(a, a) * dot(b, b)
  cosine = dot(a, b) * jax.lax.rsqrt(jnp.where(norms > 0, norms, 1))
  degenerate = (norms == 0) | (jnp.abs(cosine) > 1 - 1e-6)
  angle = jnp.arccos(jnp.where(degenerate, 0, cosine))
  curved = (jnp.sin((1 - w) * angle) * a + jnp.sin(w * angle) * b) / jnp.sin(angle)
  return jnp.where(degenerate, (1 - w) * a + w * b, curved).astype(dtype)


def interpolate(
  key: jax.Array,
  denoise: Denoiser,
  schedule: Schedule,
  x_a: jax.Array,
  x_b: jax.Array,
  ts: ArrayLike,
  weights: ArrayLike,
  *,
  solver: Solver | None = None,
) -> jax.Array:
  """Samples along the great circle between two noises, all weights in one batch.

  Args:
    key: One key, or one per pair (``key[B]``, shared by all weights of the pair). Traced.
    denoise: ``(x_t, t) -> Prediction`` for batches of ``W * B``.
    schedule: Noise schedule. Traced.
    x_a: Noise at level ``ts[0]`` at weight 0, ``f32[B, ...]``.
    x_b: Noise at weight 1, the same shape.
    ts: Decreasing levels, ``i32[S+1]`` or ``f32[S+1]``.
    weights: ``f32[W]`` in [0, 1]. Traced.
    solver: As in `sample`.

  Returns:
    Samples, ``f32[W, B, ...]``.

  Raises:
    ValueError: As `sample` and `slerp`, or if ``weights`` is not a vector.
  """
  check_range("weights", weights, 0, 1)
  weights = jnp.asarray(weights, wide(x_a.dtype))
  if weights.ndim != 1:
    raise ValueError(f"weights must be a vector, got shape {weights.shape}")
  between = jax.vmap(slerp, in_axes=(None, None, 0))(x_a, x_b, weights)
  keys = check_keys(key, x_a.shape)
  keys = keys if keys.ndim == 0 else jnp.tile(keys, weights.shape[0])
  flat = between.reshape(-1, *x_a.shape[1:])
  return sample(keys, denoise, schedule, flat, ts, solver=solver)[0].reshape(between.shape)
