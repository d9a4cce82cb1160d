"""What a program contains is decided by the platform it is lowered for, not by where it is traced."""

import chex
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

import ddim_jax
from ddim_jax.unet.operations import named

KEY = jax.random.key(0)
MODEL = ddim_jax.UNet(channels=64, multipliers=(1, 1), blocks=1, attention=(), middle_attention=False)


def sampler(variables, schedule, key, x_T, ts):
  denoise = ddim_jax.as_denoiser(lambda x, t: MODEL.apply(variables, x, t), schedule)
  return ddim_jax.sample(key, denoise, schedule, x_T, ts)[0]


@pytest.mark.parametrize(("platform", "expected"), [("cpu", True), ("tpu", False), ("cuda", False)])
def test_the_exported_sampler_has_winograds_products_for_a_cpu_only(platform, expected):
  """They are batched products of 36 matrices; convolutions of 3x3 pixels are what others have."""
  x_T = jax.ShapeDtypeStruct((2, 16, 16, 3), jnp.float32)
  variables = jax.eval_shape(MODEL.init, KEY, x_T, jnp.int32(1))
  shapes = (
    variables,
    jax.eval_shape(ddim_jax.linear_schedule),
    KEY,
    x_T,
    jax.ShapeDtypeStruct((4,), jnp.int32),
  )
  text = jax.export.export(jax.jit(sampler), platforms=[platform])(*shapes).mlir_module()
  products = [line for line in text.splitlines() if "dot_general" in line and "tensor<36x" in line]
  assert bool(products) == expected
  same_size = "tensor<3x3x64x64xf32>) -> tensor<2x16x16x64xf32>"
  direct = [line for line in text.splitlines() if "stablehlo.convolution" in line and same_size in line]
  assert bool(direct) != expected


@pytest.mark.parametrize(
  ("shape", "dtype", "chosen"),
  [
    ((8, 8, 128), "float32", True),
    ((8, 8, 128), "bfloat16", False),
    ((7, 7, 64), "float32", True),
    ((8, 8, 32), "float32", False),
    ((4, 4, 128), "float32", False),
  ],
)
def test_auto_takes_winograd_on_a_cpu_where_it_pays(shape, dtype, chosen):
  x, kernel = jnp.zeros((1, *shape), dtype), jnp.zeros((3, 3, shape[-1], 128), dtype)
  for operations, winograd in (named("auto").lowered, chosen), (named("auto").default, False):
    lowered = jax.jit(operations.convolve).lower(x, kernel).as_text()
    assert ("stablehlo.convolution" not in lowered) == winograd


def test_every_choice_is_the_same_function():
  values, spread = jax.random.normal(KEY, (2, 3, 12)), jax.random.normal(KEY, (2, 3, 4))
  choice = named("auto")
  for operations in choice:
    expected = np.asarray(values, np.float64).reshape(2, 3, 4, 3).mean(-1)
    np.testing.assert_allclose(operations.average(values, 4), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(operations.spread(spread, 12), np.repeat(spread, 3, axis=-1))


def test_the_choice_is_differentiable_and_maps():
  """Forward, reverse and under vmap: it is a conditional until the program is lowered."""
  operations = named("auto").lowered
  kernel = jax.random.normal(KEY, (3, 3, 64, 64)) / 24
  x = jax.random.normal(KEY, (2, 8, 8, 64))

  def f(x, convolve=operations.convolve, average=operations.average, spread=operations.spread):
    h = convolve(x, kernel)
    return jnp.sum(jnp.sin(h - spread(average(h.mean(axis=(1, 2)), 4), 64)[:, None, None]))

  plain = lambda x: f(x, *named("direct").default)
  gradient = jax.jit(jax.grad(plain))(x)
  chex.assert_trees_all_close(jax.jit(jax.grad(f))(x), gradient, atol=1e-4)
  one_by_one = jax.jit(jax.vmap(lambda x: jax.grad(f)(x[None])[0]))(x)
  chex.assert_trees_all_close(one_by_one, gradient, atol=1e-4)
  forward = lambda f: jax.jit(lambda x: jax.jvp(f, (x,), (x,))[1])(x)
  np.testing.assert_allclose(forward(f), forward(plain), rtol=1e-3, atol=1e-2)


def test_refuses_other_algorithms():
  with pytest.raises(ValueError, match="conv must be one of auto, direct, winograd, got 'fft'"):
    named("fft")
