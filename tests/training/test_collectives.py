"""Means over devices of trees with small and large arrays, or either alone."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddim_jax.collectives import mean

RANDOM = np.random.default_rng(0)
SHAPES = {"scalar": (), "vector": (7,), "matrix": (3, 5), "large": (300, 300), "larger": (3, 3, 100, 100)}


def test_types_stay_as_they_are():
  devices = jax.local_device_count()
  tree = {"half": jnp.ones((devices, 3), jnp.bfloat16), "whole": jnp.ones((devices, 3), jnp.float32)}
  mapped = jax.pmap(partial(mean, axis_name="devices"), axis_name="devices")
  chex.assert_trees_all_equal_shapes_and_dtypes(mapped(tree), tree)


@pytest.mark.parametrize("names", [list(SHAPES), ["vector", "scalar"], ["large"]])
def test_mean_is_that_over_devices(names):
  devices = jax.local_device_count()
  tree = {name: RANDOM.standard_normal((devices, *SHAPES[name])).astype(np.float32) for name in names}
  mapped = jax.pmap(partial(mean, axis_name="devices"), axis_name="devices", axis_size=devices)
  expected = jax.tree.map(lambda leaf: np.broadcast_to(leaf.mean(axis=0), leaf.shape), tree)
  chex.assert_trees_all_close(mapped(tree), expected, atol=1e-6)
