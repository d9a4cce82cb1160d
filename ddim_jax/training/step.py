"""One update: gradient, optimiser, EMAs."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from ddim_jax import ranges
from ddim_jax.checks import check_positive, check_whole
from ddim_jax.packing import unpack
from ddim_jax.schedules import wide
from ddim_jax.seeds import independent
from ddim_jax.training.losses import Levels


class TrainState(flax.struct.PyTreeNode):
  """Everything that training changes.

  Attributes:
    step: Updates tried so far, ``i32[]``.
    params: Parameters of the network, a tree or `packing.Packed`.
    ema: Their exponential moving average, to sample with; `packing.unpack` makes it a tree.
    opt_state: State of the optimiser.
    skipped: Updates left out because a loss or gradient was not finite, ``i32[]``.
    emas: EMAs with other decays, a tuple of trees like ``ema``.
  """

  step: jax.Array
  params: Any
  ema: Any
  opt_state: Any
  skipped: jax.Array
  emas: Any = ()


def create_state(params: Any, optimizer: optax.GradientTransformation, emas: int = 0) -> TrainState:
  """The state before the first step; all ``1 + emas`` EMAs start as copies of the parameters.

  Args:
    params: A tree of arrays; or the same packed, with `packing.pack`: then optimiser and EMAs are a few
      operations on vectors instead of a few for each array. That is for an optimiser which treats all numbers
      alike, such as ``optax.adam``; one that looks at names or single arrays (a mask, LAMB, Muon) needs the
      tree.
    optimizer: Any optax optimiser.
    emas: Number of further EMAs.
  """
  zero = jnp.zeros((), jnp.int32)
  # Distinct buffers throughout, so that the whole state can be donated.
  copies = [jax.tree.map(jnp.copy, params) for _ in range(1 + emas)]
  return TrainState(zero, params, copies[0], optimizer.init(params), jnp.copy(zero), tuple(copies[1:]))


def warmed_up(
  optimizer: Callable[..., optax.GradientTransformation],
  learning_rate: float = 2e-4,
  warmup: int = 5000,
  clip: float = 1.0,
) -> optax.GradientTransformation:
  """An optimiser as the paper uses Adam: clipped gradients, a learning rate that rises linearly.

  Args:
    optimizer: ``(learning_rate) -> optimiser``, such as ``optax.adam``.
    learning_rate: Its value after the warm-up.
    warmup: Steps over which it rises from 0; 0 for none.
    clip: Largest global norm of a gradient.

  Raises:
    ValueError: If ``clip`` or ``learning_rate`` is not positive and finite, or ``warmup`` no number of steps.
  """
  check_positive("clip", clip)
  rising = warm_rate(learning_rate, warmup)
  return optax.chain(optax.clip_by_global_norm(clip), optimizer(rising if warmup else learning_rate))


def warm_rate(learning_rate: float = 2e-4, warmup: int = 5000) -> optax.Schedule:
  """A learning rate that rises linearly from 0 over ``warmup`` updates, and then stays.

  Raises:
    ValueError: If ``learning_rate`` is not positive and finite, or ``warmup`` no number of updates.
  """
  check_positive("learning_rate", learning_rate)
  check_whole("warmup", warmup, 0, jnp.inf)
  if not warmup:
    return optax.constant_schedule(learning_rate)
  return optax.linear_schedule(0.0, learning_rate, warmup)


def cosine_rate(learning_rate: float = 2e-4, warmup: int = 5000, *, steps: int) -> optax.Schedule:
  """A learning rate that rises as `warm_rate`, then falls along half a cosine to 0 after ``steps`` updates.

  Raises:
    ValueError: If ``warmup`` is not below ``steps``.
  """
  if warmup >= steps:
    raise ValueError(f"warmup must be below the {steps:,} steps after which a cosine is 0, got {warmup:,}")
  falling = optax.cosine_decay_schedule(learning_rate, steps - warmup)
  return optax.join_schedules([warm_rate(learning_rate, warmup), falling], [warmup])


def inverse_sqrt_rate(learning_rate: float = 2e-4, warmup: int = 5000) -> optax.Schedule:
  """A learning rate that rises as `warm_rate` and then falls as ``sqrt(warmup / updates)``.

  It needs no number of updates, and goes on falling as long as a run is continued (Vaswani et al.,
  arXiv:1706.03762, equation (3)).

  Raises:
    ValueError: If ``warmup`` is 0: the rate has no start then.
  """
  if not warmup:
    raise ValueError("warmup must be positive for a rate that falls as sqrt(warmup / updates), got 0")
  rising = warm_rate(learning_rate, warmup)
  return lambda count: jnp.where(
    count < warmup, rising(count), learning_rate * jnp.sqrt(warmup / jnp.maximum(count, 1))
  )


def warm_decay(decay: float = 0.9999) -> Callable[[jax.Array], jax.Array]:
  """Decay of the EMA after ``step`` updates: ``min(decay, (1 + step) / (10 + step))``.

  A short memory at first, so that the EMA forgets the initialisation. ``decay`` is in [0, 1), else it is a
  ValueError.
  """
  ranges.check(ranges.Rate, "decay", decay)

  def at(step: ArrayLike) -> jax.Array:
    n = jnp.asarray(step, jnp.float32)
    return jnp.minimum(decay, (1 + n) / (10 + n))

  return at


def constant_decay(decay: float = 0.9999) -> Callable[[jax.Array], jax.Array]:
  """The same decay at every step, in [0, 1) or a ValueError, for an EMA that begins with trained weights."""
  ranges.check(ranges.Rate, "decay", decay)
  return lambda step: jnp.float32(decay)


def _all_finite(tree: Any) -> jax.Array:
  """Whether all numbers are.

  By a sort of the arrays' answers: XLA would repeat any sum in the kernel of each array that depends on it,
  and take minutes and gigabytes to compile those of a tree of hundreds.
  """
  return jnp.sort(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in jax.tree.leaves(tree)]))[0]


def _by_level(t: jax.Array, losses: jax.Array, edges: Sequence[int]) -> dict[str, jax.Array]:
  """Sums of losses and numbers of examples by level; nothing without edges."""
  if not edges:
    return {}
  chosen = jnp.searchsorted(jnp.asarray(edges, jnp.int32), t, side="right")
  members = jax.nn.one_hot(chosen, len(edges) + 1, dtype=losses.dtype)
  # A sum of products would turn one loss that is not finite into NaN in all bins.
  return {
    "level_losses": jnp.sum(jnp.where(members > 0, losses[:, None], 0), axis=0),
    "level_counts": jnp.sum(members, axis=0),
  }


def make_train_step(
  losses: Callable[..., jax.Array],
  levels: Levels,
  optimizer: optax.GradientTransformation,
  decay: Callable[[jax.Array], jax.Array],
  *,
  decays: Sequence[Callable[[jax.Array], jax.Array]] = (),
  level_edges: Sequence[int] = (),
  axis_name: str | None = None,
) -> Callable[..., tuple[TrainState, dict[str, jax.Array]]]:
  """One update: gradient, optimiser, EMA.

  An update whose loss, gradient norm or new parameters are not finite is not applied: parameters, EMA
  and optimiser stay, and ``skipped`` counts it.

  Args:
    losses: See `example_losses`.
    levels: `uniform_levels` or `antithetic_levels`.
    optimizer: Any optax optimiser, see `warmed_up`.
    decay: Decay of the EMA by step, see `warm_decay`.
    decays: Those of the further EMAs, as many as ``state.emas``: an EMA cannot be made
      afterwards, so that the best decay is found by keeping several.
    level_edges: Increasing levels that divide 1..T into bins, each edge the first level of a bin.
    axis_name: Axis of ``pmap`` or ``shard_map`` (with ``check_vma=False``) over which the batch is
      split in equal parts; None when the whole batch is here.

  Returns:
    ``(state, key, images: f32[B, ...], labels: i32[B]) -> (state, metrics)``. ``key`` is the run's
    key, the same at every step and on every device. Metrics are scalars over the global batch: "loss",
    "grad_norm" (before clipping), "skipped"; and with ``level_edges``, "level_losses" and
    "level_counts", ``f32[bins]``: in each bin, the sum of the losses and the number of examples.
  """

  def train_step(
    state: TrainState, key: jax.Array, images: jax.Array, labels: Any
  ) -> tuple[TrainState, dict[str, jax.Array]]:
    size, key = images.shape[0], independent(key)
    first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * size
    index = first + jnp.arange(size, dtype=jnp.int32)
    level_key, example_key = jax.random.split(jax.random.fold_in(key, state.step))
    t = jax.vmap(levels, in_axes=(None, 0))(level_key, index)
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(example_key, index)

    def batch_loss(params: Any) -> tuple[jax.Array, jax.Array]:
      values = losses(unpack(params), keys, images, labels, t)
      return jnp.mean(values), values

    (value, values), grads = jax.value_and_grad(batch_loss, has_aux=True)(state.params)
    by_level = _by_level(t, values, level_edges)
    if axis_name is not None:
      value, grads = jax.lax.pmean((value, grads), axis_name)
      by_level = jax.lax.psum(by_level, axis_name)
    grad_norm = optax.tree.norm(grads)

    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    # A finite norm is one of finite squares, which is all that the moments of the optimiser hold.
    finite = _all_finite((value, grad_norm, params))
    chosen = lambda new, old: jax.tree.map(partial(jnp.where, finite), new, old)
    params = chosen(params, state.params)

    def average(old: Any, decay: Callable[[jax.Array], jax.Array]) -> Any:
      share = jnp.where(finite, 1 - decay(state.step), 0)
      move = lambda new, old: optax.incremental_update(new, old, share.astype(wide(new.dtype)))
      return jax.tree.map(move, params, old)

    emas = tuple(average(old, other) for old, other in zip(state.emas, decays, strict=True))
    skipped = state.skipped + jnp.where(finite, 0, 1)
    state = TrainState(
      state.step + 1, params, average(state.ema, decay), chosen(opt_state, state.opt_state), skipped, emas
    )
    return state, {"loss": value, "grad_norm": grad_norm, "skipped": state.skipped} | by_level

  return train_step
