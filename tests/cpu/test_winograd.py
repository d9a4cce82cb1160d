import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ddim_jax
from ddim_jax import convolution
from ddim_jax.cpu import winograd
from tests import oracles
from tests.helpers import draw, random_variables


def test_one_dimension_is_a_filter_of_three_taps():
  output, weights, inputs = winograd.bilinear()
  g, d = np.random.default_rng(0).standard_normal((2, 6))
  got = output @ ((weights @ g[:3]) * (inputs @ d))
  np.testing.assert_allclose(got, [d[i : i + 3] @ g[:3] for i in range(4)], rtol=1e-12)


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (1, 2), (16, 12)])
def test_equals_the_definition(size):
  x, kernel = draw((3, *size, 5), (3, 3, 5, 4))
  expected = oracles.convolution(x, kernel)
  got = np.asarray(jax.jit(winograd.convolve)(x, kernel))
  assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max()


def test_float32_loses_little_more_than_the_definition():
  """RMS error over the RMS of the result, at the width of the networks that it is for."""
  x, kernel = draw((2, 16, 16, 256), (3, 3, 256, 128))
  expected = oracles.convolution(x, kernel)
  error = lambda f: np.sqrt(
    np.mean((np.asarray(jax.jit(f)(x, kernel)) - expected) ** 2) / np.mean(expected**2)
  )
  assert error(winograd.convolve) < 2e-6
  assert error(winograd.convolve) < 5 * error(convolution.direct)


def test_gradients_are_those_of_the_definition():
  x, kernel = draw((2, 6, 9, 16), (3, 3, 16, 8))
  (g,) = draw((2, 6, 9, 8))
  both = [
    jax.jit(lambda g, f=f: jax.vjp(f, x, kernel)[1](g))(g) for f in (winograd.convolve, convolution.direct)
  ]
  for got, expected in zip(*both, strict=True):
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_a_batch_shared_by_devices_stays_where_it_is(exchanges):
  """A loop over images would gather them: those of one device after those of another."""
  x, kernel = (jax.ShapeDtypeStruct(shape, "float32") for shape in ((8, 32, 32, 256), (3, 3, 256, 8)))
  for convolve in (winograd.convolve, convolution.direct, convolution.upsampled):
    assert not exchanges(lambda kernel, x, convolve=convolve: convolve(x, kernel), kernel, x)


def test_vmap_and_forward_derivatives():
  x, kernel, dx = draw((3, 1, 4, 8, 2), (3, 3, 2, 2), (3, 1, 4, 8, 2))
  mapped = lambda f: jax.jvp(jax.vmap(f, in_axes=(0, None)), (x, kernel), (dx, 2 * kernel))
  for got, expected in zip(mapped(winograd.convolve), mapped(convolution.direct), strict=True):
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_spends_36_products_a_tile_of_16_pixels():
  """And 36 * 36 + 16 * 36 for the transforms of a tile's channels, 9 * 36 for the kernel's."""
  x, kernel = draw((4, 32, 32, 128), (3, 3, 128, 128))
  flops = lambda f: jax.jit(f).lower(x, kernel).cost_analysis()["flops"]
  tiles, channels = 4 * 64, 128
  products = 36 * tiles * channels**2 + (36 + 16) * 36 * tiles * channels + 9 * 36 * channels**2
  assert flops(winograd.convolve) < 1.05 * 2 * products
  assert flops(winograd.convolve) < 0.4 * flops(convolution.direct)


@pytest.mark.parametrize("kernel", [(3, 3, 4, 2), (5, 5, 3, 2), (3, 3, 3)])
def test_refuses_other_kernels(kernel):
  with pytest.raises(ValueError, match="kernel"):
    winograd.convolve(jnp.zeros((1, 4, 4, 3)), jnp.zeros(kernel))


@pytest.mark.slow
def test_networks_are_the_same_whatever_computes_their_convolutions():
  """The same variables, output and gradients."""
  options = {"channels": 128, "multipliers": (1, 2), "blocks": 1, "attention": ()}
  direct, other, auto = (ddim_jax.UNet(**options, conv=conv) for conv in ("direct", "winograd", "auto"))
  x, g = draw((2, 16, 16, 3), (2, 16, 16, 3))
  variables = random_variables(direct, x.shape)
  shapes = [jax.eval_shape(m.init, jax.random.key(0), x, jnp.array(1)) for m in (direct, other, auto)]
  assert jax.tree.map(jnp.shape, shapes[0]) == jax.tree.map(jnp.shape, shapes[1])
  assert jax.tree.map(jnp.shape, shapes[0]) == jax.tree.map(jnp.shape, shapes[2])

  @jax.jit
  def run(variables):
    result = []
    for model in (direct, other, auto):
      output, back = jax.vjp(lambda variables, m=model: m.apply(variables, x, 500), variables)
      result.append((output, back(g)))
    return result

  expected, *others = run(variables)
  largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))
  for got in others:
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
      np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * max(np.abs(b).max(), 1e-2 * largest))
