"""Recomputation: the same derivatives, and less memory in the compiled program."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ddim_jax
from ddim_jax.cpu.recomputation import recomputed

KEY = jax.random.key(0)
W, X, C = jax.random.normal(KEY, (5, 5)), jax.random.normal(KEY, (3, 5)), jnp.linspace(0.0, 1.0, 5)


def layer(w, x, c, power):
  return jnp.tanh(jnp.sin(x @ w["w"]) + c[None]) ** power


@pytest.mark.slow
def test_derivatives_are_the_same_also_under_vmap():
  def derivatives(f):
    loss = lambda w, x, c: jnp.sum(f({"w": w}, f({"w": w}, x, c, 1), c, 3))
    plain = jax.grad(loss, argnums=(0, 1, 2))
    mapped = jax.vmap(plain, (None, 0, None))
    return plain(W, X, C), jax.jit(plain)(W, X, C), mapped(W, X[:, None], C)

  chex.assert_trees_all_close(derivatives(layer), derivatives(recomputed(layer)), rtol=1e-4, atol=1e-6)


def test_a_derivative_that_is_not_finite_stays_so():
  for derivative in (jnp.inf, -jnp.inf, jnp.nan):
    _, back = jax.vjp(lambda x: recomputed(layer)({"w": W}, x, C, 1), X)
    assert not np.isfinite(back(jnp.full(X.shape, derivative))[0]).any()


@pytest.mark.slow
def test_a_compiled_network_needs_less_memory():
  def megabytes(remat):
    model = ddim_jax.UNet(
      channels=16, multipliers=(1, 1), blocks=1, attention=(), groups=8, dropout=0.0, remat=remat
    )
    x = jax.ShapeDtypeStruct((8, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(model.init, KEY, x, jnp.int32(1))
    loss = lambda variables, x: jnp.sum(model.apply(variables, x, jnp.int32(1), train=True) ** 2)
    program = jax.jit(jax.grad(loss)).lower(variables, x).compile()
    return program.memory_analysis().temp_size_in_bytes / 2**20

  plain, remat = megabytes(False), megabytes(True)
  assert 10 < remat < 0.6 * plain, (remat, plain)
