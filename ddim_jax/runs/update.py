"""An update of all devices of all hosts, and its batch."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ddim_jax import data, training
from ddim_jax.runs import objective

AXIS = "devices"
"""Name of the axis over which a batch is split."""


def on_every_device(state: training.TrainState) -> training.TrainState:
  """The state laid out over the local devices as `pmapped_update` returns it.

  An update of numpy arrays is traced and compiled once more for what comes out of it.
  """
  mesh = jax.sharding.Mesh(np.asarray(jax.local_devices()), (AXIS,))
  everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
  placed: training.TrainState = jax.device_put(state, everywhere)
  return placed


def pmapped_update(
  losses: Callable[..., jax.Array],
  levels: training.Levels,
  optimizer: optax.GradientTransformation,
  decay: Callable[[jax.Array], jax.Array],
  decays: Sequence[Callable[[jax.Array], jax.Array]] = (),
  level_edges: Sequence[int] = (),
  scaling: data.Scaling = data.BYTES,
  rate: optax.Schedule | None = None,
) -> Any:
  """``(state, key, images, labels, stop) -> (state, metrics)`` over the local devices of all hosts.

  State and metrics have no device axis: they are the same everywhere. The state is donated. ``scaling`` says
  what the numbers in images mean, and ``rate``, if given, is the metric "learning_rate" by the number of
  updates that were made before; the other arguments are those of `ddim_jax.training.make_train_step`.
  """
  step = training.make_train_step(
    losses, levels, optimizer, decay, decays=decays, level_edges=level_edges, axis_name=AXIS
  )

  def update(state: Any, key: Any, images: Any, labels: Any, stop: Any) -> Any:
    before = state.step - state.skipped
    state, metrics = step(state, key, scaling.to_data(images), labels)
    if rate is not None:
      metrics |= {"learning_rate": jnp.asarray(rate(before), jnp.float32)}
    # The devices of one host are told the same, and on a CPU a device that waits for others has nothing else
    # to do: agreeing took half of a step of the digits' network.
    agreed = stop if jax.process_count() == 1 else jax.lax.pmax(stop, AXIS)
    return state, metrics | {"stop": agreed}

  return jax.pmap(
    update, axis_name=AXIS, in_axes=(None, None, 0, 0, 0), out_axes=(None, None), donate_argnums=0
  )


def local_batch(
  source: data.Source, step: int, *, batch_size: int, seed: int = 0, flip: bool = False
) -> tuple[np.ndarray, Any]:
  """This process's rows of a batch, split over its devices: ``[D, b, *shape]``, and labels ``i32[D, b]``.

  Of a source with conditions, these are with the labels, as `objective.Given`.
  """
  part = (jax.process_index(), jax.process_count())
  images, labels, conditions = data.batch_at(
    source, step, batch_size=batch_size, seed=seed, flip=flip, part=part
  )
  split = lambda x: x.reshape(jax.local_device_count(), -1, *x.shape[1:])
  if source.conditions is None:
    return split(images), split(labels)
  return split(images), objective.Given(split(labels), split(conditions))
