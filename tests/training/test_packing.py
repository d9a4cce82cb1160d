"""Trees as vectors: there and back, gradients, optimisers, and the training step on either."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ddim_jax
from ddim_jax import checkpoints, training
from ddim_jax.packing import Packed, pack, pack_like, unpack

KEY = jax.random.key(0)
TREE = {
  "kernel": np.arange(6.0, dtype=np.float32).reshape(2, 3),
  "half": {"bias": np.ones(2, np.float16), "scalar": np.array(5, np.float32)},
  "empty": np.zeros((0, 4), np.float32),
  "count": np.arange(3, dtype=np.int32),
}


def on_device(tree):
  return jax.tree.map(jnp.asarray, tree)


@pytest.mark.parametrize("where", [lambda tree: tree, on_device])
def test_there_and_back(where):
  packed = pack(where(TREE))
  assert [vector.shape for vector in packed.vectors] == [(3,), (7,), (2,)]
  chex.assert_trees_all_equal(unpack({"a": packed, "b": 1}), {"a": where(TREE), "b": 1})
  chex.assert_trees_all_equal(unpack(where(TREE)), where(TREE))
  chex.assert_trees_all_equal(pack_like((packed, 0), (where(TREE), 7)), (packed, 7))


def test_large_arrays_lie_alone():
  packed = pack(TREE, alone=5)
  assert [vector.shape for vector in packed.vectors] == [(3,), (1,), (2,), (6,)]
  chex.assert_trees_all_equal(unpack(packed), TREE)
  assert pack_like(packed, unpack(packed)).layout == packed.layout


def test_on_the_host_arrays_are_views():
  packed = pack(TREE)
  assert all(isinstance(vector, np.ndarray) for vector in packed.vectors)
  assert np.shares_memory(unpack(packed)["kernel"], packed.vectors[1])


def test_nothing_cannot_be_packed():
  with pytest.raises(ValueError, match="no arrays"):
    pack({})


def test_gradients_are_those_of_the_tree():
  tree = on_device({"w": TREE["kernel"], "b": {"c": TREE["half"]["scalar"]}})
  loss = lambda tree: jnp.sum(jnp.sin(tree["w"])) * tree["b"]["c"]
  expected = jax.grad(loss)(tree)
  got = jax.grad(lambda packed: loss(unpack(packed)))(pack(tree))
  assert isinstance(got, Packed)
  chex.assert_trees_all_equal(unpack(got), expected)
  tangent = jax.jvp(lambda packed: loss(unpack(packed)), (pack(tree),), (got,))[1]
  np.testing.assert_allclose(tangent, sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(expected)), rtol=1e-6)


NETWORK = {
  name: jax.random.normal(KEY, shape, jnp.float32) * float(len(shape) > 1)
  for name, shape in {"w": (4, 5), "b": (5,), "out": (5, 4)}.items()
}


def run(params, optimizer, steps=3, scale=1.0):
  """A few steps of a small network."""
  network = lambda p, x, t, labels, keys: jnp.tanh(x @ p["w"] + p["b"][None]) @ p["out"]
  losses = training.example_losses(network, ddim_jax.linear_schedule())
  levels = training.antithetic_levels(1000)
  step = training.make_train_step(
    losses, levels, optimizer, training.warm_decay(0.9), decays=[training.constant_decay(0.5)]
  )
  state, metrics = training.create_state(params, optimizer, emas=1), None
  for _ in range(steps):
    state, metrics = jax.jit(step)(
      state, KEY, scale * jax.random.normal(KEY, (8, 4), jnp.float32), jnp.arange(8)
    )
  return state, metrics


@pytest.mark.slow
@pytest.mark.parametrize(
  "optimizer", [training.warmed_up(optax.adam, warmup=2), optax.sgd(0.1, momentum=0.9)]
)
def test_training_on_vectors_is_training_on_the_tree(optimizer):
  with jax.numpy_dtype_promotion("standard"):  # optax's bias correction raises a float to an integer power
    packed, packed_metrics = run(pack(NETWORK), optimizer)
    tree, metrics = run(NETWORK, optimizer)
  assert isinstance(packed.params, Packed)
  chex.assert_trees_all_close(unpack(packed), tree, rtol=1e-5, atol=1e-6)
  chex.assert_trees_all_close(packed_metrics, metrics, rtol=1e-5)
  assert checkpoints.flatten(unpack(packed)).keys() == checkpoints.flatten(tree).keys()


def test_an_optimiser_that_looks_at_the_tree_sees_it():
  """Weight decay of the matrices alone, by a mask on shapes."""
  decay = optax.add_decayed_weights(0.5, mask=lambda tree: jax.tree.map(lambda leaf: leaf.ndim > 1, tree))
  optimizer = optax.chain(optax.set_to_zero(), decay, optax.scale(-1.0))
  (state, _), bias = run({**NETWORK, "b": jnp.ones(5, jnp.float32)}, optimizer, steps=1), np.ones(5)
  np.testing.assert_allclose(state.params["w"], 0.5 * NETWORK["w"], rtol=1e-6)
  np.testing.assert_array_equal(state.params["b"], bias)


@pytest.mark.parametrize("params", [NETWORK, pack(NETWORK), pack(NETWORK, alone=10)])
def test_an_update_that_is_not_finite_changes_nothing(params):
  with jax.numpy_dtype_promotion("standard"):
    state, metrics = run(params, training.warmed_up(optax.adam), steps=2, scale=jnp.nan)
    begun = training.create_state(params, training.warmed_up(optax.adam), emas=1)
  chex.assert_trees_all_equal(state, begun.replace(step=state.step, skipped=state.skipped))
  assert int(metrics["skipped"]) == int(state.step) == 2


def test_a_checkpoint_of_vectors_is_that_of_the_tree(tmp_path):
  optimizer = optax.sgd(0.1, momentum=0.9)
  packed, _ = run(pack(NETWORK), optimizer)
  with checkpoints.open_manager(tmp_path) as manager:
    checkpoints.save(manager, 3, packed, {})
  restored = checkpoints.restore_latest(tmp_path)
  assert {"params.w", "ema.out", "emas.0.b", "opt_state.0.trace.w"} <= restored.arrays.keys()
  for template in (packed, jax.eval_shape(lambda: packed)):
    chex.assert_trees_all_equal(checkpoints.fill(template, restored.arrays), jax.device_get(packed))
  tree = training.create_state(NETWORK, optimizer, emas=1)
  chex.assert_trees_all_equal(checkpoints.fill(tree, restored.arrays), unpack(jax.device_get(packed)))
