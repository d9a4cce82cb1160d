"""From a seed to images: the same whatever JAX's generator and precision, and different for every seed."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ddim_jax
from ddim_jax import models
from ddim_jax.data.batches import batch_indices
from ddim_jax.seeds import independent, key_of, typed
from tests.helpers import printed

SEEDS = [0, 1, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**33, 2**62, 2**63 - 1]
DRAW = (
  "import numpy as np; from ddim_jax.models import from_network\n"
  "model = from_network(lambda params, x, t: params * x, (2, 2, 1), params=np.float32(0.5))\n"
  "print(model.sample(2, steps=2, seed=7, eta=0.5).astype(np.float32).round(4).tolist())"
)


def test_all_seeds_differ_and_small_ones_are_those_of_jax():
  words = [tuple(np.asarray(jax.random.key_data(key_of(seed)))) for seed in SEEDS]
  assert len(set(words)) == len(SEEDS)
  for seed in SEEDS[:4]:
    np.testing.assert_array_equal(
      jax.random.key_data(key_of(seed)), jax.random.key_data(jax.random.key(seed))
    )


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int16, np.int32, np.uint32, np.int64, np.uint64])
def test_integers_of_numpy_are_the_seeds_that_they_equal(kind):
  for seed in (0, 7, min(np.iinfo(kind).max, 2**63 - 1)):
    expected = jax.random.key_data(key_of(int(seed)))
    np.testing.assert_array_equal(jax.random.key_data(key_of(kind(seed))), expected)
    np.testing.assert_array_equal(batch_indices(9, 9, kind(seed), 0), batch_indices(9, 9, int(seed), 0))


@pytest.mark.parametrize("seed", [-1, 2**63, 2**64, 1.0, 1.5, "1", True, None, np.nan])
def test_what_is_no_seed_is_refused(seed):
  with pytest.raises(ValueError, match=r"seed must be an integer in .0, 9,223,372"):
    key_of(seed)
  with pytest.raises(ValueError, match=r"seed must be an integer in .0, 9,223,372"):
    batch_indices(4, 2, seed, 0)


@pytest.mark.parametrize("impl", ["rbg", "unsafe_rbg"])
def test_a_generator_whose_numbers_depend_on_the_batch_is_refused(impl):
  key = jax.random.key(0, impl=impl)
  for use in (lambda: independent(key), lambda: ddim_jax.image_keys(key, jnp.arange(2))):
    with pytest.raises(ValueError, match="must be of threefry2x32, got"):
      use()
  with pytest.raises(ValueError, match="must be of threefry2x32"):
    ddim_jax.initial_noise(jax.random.split(key, 2), (2, 3))
  ddim_jax.initial_noise(key, (2, 3))  # one for the batch promises nothing


def test_keys_of_the_old_kind_are_keys():
  old = jax.random.PRNGKey(3)
  np.testing.assert_array_equal(jax.random.key_data(typed(old)), old)
  for wrong in (3, jnp.zeros(2), "key", lambda x, t: x):
    with pytest.raises(ValueError, match="key must be a key"):
      typed(wrong)


@pytest.mark.slow
def test_settings_of_jax_change_no_image():
  plain = os.environ | {"XLA_FLAGS": ""}
  expected = printed(DRAW, plain)
  assert "nan" not in expected
  for change in ({"JAX_DEFAULT_PRNG_IMPL": "rbg"}, {"JAX_ENABLE_X64": "1"}):
    assert printed(DRAW, plain | change) == expected


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_images_that_are_not_finite_are_no_result(value):
  def apply(params, x, t):
    return jnp.where(jnp.arange(x.shape[0])[:, None, None, None] == 1, params, x)

  model = models.from_network(apply, (2, 2, 1), params=np.float32(value), clip=False)
  with pytest.raises(FloatingPointError, match="1 of 3 images are not finite, such as image 1"):
    model.sample(3, steps=1, batch_size=3)
  with pytest.raises(FloatingPointError, match="1 of 3 images are not finite, such as image 1"):
    model.invert(np.zeros((3, 2, 2, 1), np.float32), steps=1, batch_size=3)
