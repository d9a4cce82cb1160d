"""Inversion: from data to the noise that a deterministic solver turns into it."""

import jax
import jax.numpy as jnp

from ddim_jax.denoisers import Denoiser
from ddim_jax.parameterisation import Prediction
from ddim_jax.sampling import check_levels
from ddim_jax.schedules import Schedule, coefficients
from ddim_jax.solvers import Solver, ddim, ddim_step


def climb(denoise: Denoiser, schedule: Schedule, x_s: jax.Array, s, t) -> jax.Array:
  """A DDIM step up, from level ``s`` to the noisier ``t``, the network asked at level ``max(s, 1)``.

  Args:
    denoise: ``(x_t, t) -> Prediction``.
    schedule: Noise schedule. Traced.
    x_s: Sample at level ``s``, ``f32[B, ...]``.
    s: Level in ``[0, T]``, ``i32[]``. Traced.
    t: Level to reach, ``i32[]``. Traced.
  """
  alpha, sigma = coefficients(schedule, s, x_s)
  eps = denoise(x_s, jnp.maximum(s, 1)).eps
  return ddim_step(schedule, Prediction((x_s - sigma * eps) / alpha, eps), s, t)


def invert(
  denoise: Denoiser,
  schedule: Schedule,
  x0: jax.Array,
  ts,
  *,
  refine: int | jax.Array = 0,
  damping: float | jax.Array = 1.0,
  solver: Solver | None = None,
) -> jax.Array:
  r"""Finds the noise from which a deterministic solver makes ``x0``.

  A step from level t down to s maps x_t to x_s = F(x_t). Going up, the network should be asked at x_t,
  which is not known yet: plain inversion is a DDIM step from where it stands, an error of first order
  in 1/S (a network is never asked at level 0, where none is trained: level 1 there). Each refinement
  then steps down from the point just found and moves it by what it missed,

  .. math:: x_t \leftarrow x_t + d\, \frac{\alpha_t}{\alpha_s} \bigl(x_s - F(x_t)\bigr),

  which for DDIM and d = 1 is the fixed point ``x_t = move(x_s, eps(x_t, t))``. Where that contracts, the
  round trip is exact to rounding. Over long steps a network may change so fast that it oscillates: a
  damping d of 0.5 or so mends that. The other case is a step into clean data where the network is sure of
  them whatever the noise (a plain background): F then hardly depends on x_t, hence hardly anything
  is left to find it from; convergence is slow there, damped or not, and the images agree long before.
  `ddim_jax.bijective` is exact whatever the network.

  Args:
    denoise: ``(x_t, t) -> Prediction``. Clipping or thresholding cannot be inverted: leave it out.
    schedule: Noise schedule. Traced.
    x0: Samples at level ``ts[-1]``, ``f32[B, ...]``.
    ts: The decreasing levels that `sample` would use, ``i32[S+1]``; values traced, S static.
    refine: Fixed-point iterations per step, at least 0; each costs one step of the solver. Static, or
      traced ``i32[]``, which rules out reverse-mode derivatives.
    damping: Dimensionless, in (0, 1]; 1 is undamped. Traced.
    solver: What `sample` will use, `ddim()` by default: deterministic and without memory of earlier steps.

  Returns:
    The sample at level ``ts[0]``, ``f32[B, ...]``.

  Raises:
    ValueError: At trace time, on a wrong shape or dtype of ``x0`` or ``ts``, a negative ``refine``, or a
      solver with memory.

  References:
    Section 4.3 of arXiv:2010.02502; fixed point: Pan et al., arXiv:2309.04907.
  """
  ts = check_levels(x0, ts, "x0")
  solver = ddim() if solver is None else solver
  carry = solver.init(x0)
  if not isinstance(refine, jax.Array) and refine < 0:
    raise ValueError(f"refine must be at least 0, got {refine}")
  if jax.tree.leaves(carry):
    raise ValueError("solver must not remember earlier steps: going up, they are not known yet")

  def step(x_s, levels):
    t, s = levels
    (alpha_t, _), (alpha_s, _) = coefficients(schedule, t, x_s), coefficients(schedule, s, x_s)
    gain = jnp.asarray(damping, x_s.dtype) * alpha_t / alpha_s

    def refined(_, x_t):
      landed = solver.step(denoise, schedule, carry, x_t, t, s, jnp.zeros_like(x_t))[0]
      return x_t + gain * (x_s - landed)

    return jax.lax.fori_loop(0, refine, refined, climb(denoise, schedule, x_s, s, t)), None

  return jax.lax.scan(step, x0, (ts[-2::-1], ts[:0:-1]))[0]
