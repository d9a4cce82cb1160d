"""Sampling parallel in time: all steps at once, again and again, until nothing changes.

`ddim_jax.sample` waits for one network evaluation after another, however many devices there are. Here a
round evaluates a whole window of steps at once and corrects the trajectory; far fewer rounds than steps
are needed, for a larger NFE in all.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ddim_jax.checks import check_decreasing, check_range, check_whole
from ddim_jax.denoisers import Denoiser
from ddim_jax.sampling import check_chain
from ddim_jax.schedules import Level, Schedule
from ddim_jax.seeds import check_keys, step_noise
from ddim_jax.solvers import Solver, ddim
from ddim_jax.solvers.base import check_solver


class Parallel(NamedTuple):
  """What `sample_parallel` returns.

  Attributes:
    x_0: Samples at level ``ts[-1]``, ``f32[B, ...]``.
    rounds: Evaluations of the window one after another, ``i32[]``, at most S.
  """

  x_0: jax.Array
  rounds: jax.Array


def sample_parallel(
  key: jax.Array,
  denoise: Denoiser,
  schedule: Schedule,
  x_T: jax.Array,
  ts: ArrayLike,
  *,
  solver: Solver | None = None,
  window: int | None = None,
  tolerance: float | jax.Array = 1e-3,
  axis_name: str | None = None,
) -> Parallel:
  r"""What `sample` returns, in fewer sequential rounds than steps: Picard iteration, as in ParaDiGMS.

  With F_i the solver's step i and x the trajectory so far, a round sets, for every i of the window that
  starts at a,

  .. math:: x_{i+1} \leftarrow x_a + \sum_{j=a}^{i} \bigl(F_j(x_j) - x_j\bigr).

  The window then moves to the first point that changed by more than the tolerance. Its first step is
  always exact, so that it moves in every round, and with a tolerance of 0 the result is that of `sample`
  to rounding. Noise is that of `sample` with the same key, at every step.

  Args:
    key: As in `sample`. Traced.
    denoise: ``(x_t, t) -> Prediction``.
    schedule: Noise schedule. Traced.
    x_T: Where to start, ``f32[B, ...]``.
    ts: Decreasing levels ``i32[S+1]``; values traced, S static.
    solver: `ddim()` by default; any without memory of earlier steps.
    window: Steps evaluated at once, from 1 to S; S, the whole chain, by default. Memory holds S + window
      samples, and one evaluation is of ``window * B`` samples. Static.
    tolerance: Root mean square change of a sample, in data units, that counts as none. The result is off
      by about as much, up to a few times more for long chains. Traced.
    axis_name: Axis of ``pmap`` or ``shard_map`` (with ``check_vma=False``) over whose devices the steps
      of the window are split in equal parts; inputs and results are the same on all. Static.

  Returns:
    Samples and the number of rounds. Not reverse-differentiable: the number of rounds is not fixed.

  Raises:
    ValueError: At trace time, as `sample`, for a solver with memory, or a window out of range or not a
      multiple of the number of devices.

  References:
    Algorithm 1 of Shih et al., arXiv:2305.16317.
  """
  solver = ddim() if solver is None else solver
  check_solver(solver)
  given, (denoise, ts) = ts, check_chain(denoise, schedule, x_T, ts, "x_T")
  check_decreasing(given, schedule.T)
  check_range("tolerance", tolerance, 0, jnp.inf)
  keys, carry = check_keys(key, x_T.shape), solver.init(x_T)
  S = ts.shape[0] - 1
  window = S if window is None else window
  devices = 1 if axis_name is None else jax.lax.axis_size(axis_name)
  if jax.tree.leaves(carry):
    raise ValueError("solver must not remember earlier steps: they are all taken at once")
  check_whole("window", window, 1, S)
  if window % devices:
    raise ValueError(f"window must be a multiple of the {devices} devices, got {window}")
  share = window // devices

  # Beyond the last step, the last step again: its result is not used.
  beyond = jnp.full(window, S - 1)
  steps = jnp.concatenate([jnp.arange(S), beyond])
  levels, index = (steps + 1, ts[steps], ts[steps + 1]), jnp.arange(S + window + 1, dtype=jnp.int32)

  def move(x_t: jax.Array, draw: jax.Array, t: Level, s: Level) -> jax.Array:
    z = step_noise(keys, draw, solver.draws, x_t.shape, x_t.dtype)
    return solver.step(denoise, schedule, carry, x_t, t, s, z)[0] - x_t

  def drifts(path: jax.Array, start: jax.Array) -> jax.Array:
    """``F_j(x_j) - x_j`` for the window, each device its share."""
    mine = start + (0 if axis_name is None else jax.lax.axis_index(axis_name) * share)
    part = lambda values: jax.lax.dynamic_slice_in_dim(values, mine, share)
    drift = jax.vmap(move)(part(path), *map(part, levels))
    return drift if axis_name is None else jax.lax.all_gather(drift, axis_name, tiled=True)

  def a_round(state: Any) -> Any:
    start, path, rounds = state
    old = jax.lax.dynamic_slice_in_dim(path, start + 1, window)
    new = path[start][None] + jnp.cumsum(drifts(path, start), axis=0)
    change = jnp.mean((new - old) ** 2, axis=tuple(range(2, new.ndim)))
    settled = jnp.max(change, axis=1) <= jnp.asarray(tolerance, x_T.dtype) ** 2
    # The first point is exact, whatever its change; those after it count while they are settled.
    moved = 1 + jnp.sum(jnp.cumprod(settled[1:].astype(jnp.int32)), dtype=jnp.int32)
    path = jax.lax.dynamic_update_slice_in_dim(path, new, start + 1, axis=0)
    ahead = jnp.reshape(index > start + window, (-1,) + (1,) * x_T.ndim)
    return start + moved, jnp.where(ahead, new[-1][None], path), rounds + 1

  path = jnp.broadcast_to(x_T[None], (S + window + 1, *x_T.shape))
  zero = jnp.zeros((), jnp.int32)
  _, path, rounds = jax.lax.while_loop(lambda state: state[0] < S, a_round, (zero, path, zero))
  return Parallel(path[S], rounds)
