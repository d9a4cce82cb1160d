"""Attention whose scores would not fit is computed in parts, with the same result and derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ddim_jax
from ddim_jax.unet.attention import attention

KEY = jax.random.key(0)


def definition(q, k, v):
  scores = jnp.einsum("bqhc,bkhc->bhqk", q, k) / q.shape[-1] ** 0.5
  return jnp.einsum("bhqk,bkhc->bqhc", jax.nn.softmax(scores), v)


@pytest.mark.slow
@pytest.mark.parametrize("number", [49, 2 * 1024 + 2])
def test_equals_its_definition(number):
  """The larger number is split in two parts, a divisor of it each."""
  arrays = jax.random.normal(KEY, (3, 1, number, 2, 4))
  loss = lambda f: lambda *arrays: jnp.sum(jnp.sin(3 * f(*arrays)))
  for f in (lambda f: f, lambda f: jax.grad(loss(f), argnums=(0, 1, 2))):
    for got, expected in zip(f(attention)(*arrays), f(definition)(*arrays), strict=True):
      np.testing.assert_allclose(got, expected, rtol=1e-5, atol=2e-6)


def test_scores_of_narrow_types_are_float32():
  """Scores of about 100, which bfloat16 would round to whole numbers of a half."""
  q, k, v = (x.astype(jnp.bfloat16) for x in (8 * jax.random.normal(KEY, (3, 2, 64, 1, 16))))
  wide = lambda x: x.astype(jnp.float32)
  got, expected = attention(q, k, v), definition(wide(q), wide(k), wide(v))
  assert got.dtype == jnp.bfloat16
  assert np.abs(wide(got) - expected).max() < 0.02 * np.abs(expected).max()


def test_scores_are_computed_again_on_a_tpu_only():
  """Scores and output are two products, their derivatives four, and scores for the backward pass one more."""
  arrays = jax.random.normal(KEY, (3, 2, 64, 1, 4))
  traced = jax.jit(jax.grad(lambda *a: jnp.sum(jnp.sin(attention(*a))), argnums=(0, 1, 2))).trace(*arrays)
  products = lambda platform: traced.lower(lowering_platforms=(platform,)).as_text().count("dot_general")
  assert {platform: products(platform) for platform in ("cpu", "cuda", "tpu")} == {
    "cpu": 6,
    "cuda": 6,
    "tpu": 7,
  }


@pytest.mark.slow
def test_a_map_of_64_by_64_needs_no_matrix_of_all_scores():
  """That of a batch of 2 alone has 134 MB, and its derivative as many."""
  model = ddim_jax.UNet(channels=8, multipliers=(1,), blocks=1, attention=(64,), groups=4, dropout=0.0)
  x = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
  variables = jax.eval_shape(model.init, KEY, x, jnp.int32(1))
  loss = lambda variables, x: jnp.sum(model.apply(variables, x, jnp.int32(1), train=True) ** 2)
  program = jax.jit(jax.grad(loss)).lower(variables, x).compile()
  assert program.memory_analysis().temp_size_in_bytes < 64 * 4096**2


@pytest.mark.parametrize("heads", [{"heads": 3}, {"head_dim": 3}])
def test_heads_that_do_not_share_the_channels_are_refused(heads):
  network = ddim_jax.UNet(channels=8, multipliers=(1,), blocks=1, attention=(), groups=4, **heads)
  with pytest.raises(ValueError, match="head_dim and heads must divide the channels with attention, 8"):
    jax.eval_shape(network.init, KEY, jnp.zeros((1, 8, 8, 3)), 1)
