import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddim_jax.convolution import upsampled
from tests import oracles
from tests.helpers import draw


def plain(x, kernel):
  """Upsampling, then the convolution, in float64."""
  return oracles.convolution(np.kron(x, np.ones((1, 2, 2, 1))), kernel)


@pytest.mark.parametrize("size", [(6, 8), (5, 3), (1, 1)])
def test_equals_the_sum_over_shifts_of_the_large_image(size):
  x, kernel = draw((2, *size, 5), (3, 3, 5, 4))
  expected = plain(x, kernel)
  difference = np.abs(np.asarray(jax.jit(upsampled)(x, kernel)) - expected).max()
  assert difference <= 1e-5 * np.abs(expected).max()


def test_gradients_are_those_of_a_bilinear_map():
  """<g, f(dx, k)> is the gradient by x along dx, and likewise by the kernel."""
  x, kernel, dx, dkernel = draw((2, 6, 4, 5), (3, 3, 5, 4), (2, 6, 4, 5), (3, 3, 5, 4))
  along_x, along_kernel = plain(dx, kernel), plain(x, dkernel)
  (g,) = draw(along_x.shape)
  by_x, by_kernel = jax.jit(lambda g: jax.vjp(upsampled, x, kernel)[1](g))(g)
  dot = lambda a, b: np.sum(np.asarray(a, np.float64) * np.asarray(b, np.float64))
  assert dot(by_x, dx) == pytest.approx(dot(g, along_x), rel=1e-5)
  assert dot(by_kernel, dkernel) == pytest.approx(dot(g, along_kernel), rel=1e-5)


def test_spends_16_products_a_pixel_of_the_small_image_and_pair_of_channels():
  x, kernel = draw((1, 16, 16, 8), (3, 3, 8, 8))
  flops = jax.jit(upsampled).lower(x, kernel).cost_analysis()["flops"]
  assert flops < 1.05 * 2 * 16 * 16 * 16 * 8 * 8


@pytest.mark.parametrize("kernel", [(3, 3, 4, 2), (5, 5, 3, 2), (3, 3, 3)])
def test_refuses_other_kernels(kernel):
  with pytest.raises(ValueError, match="kernel"):
    upsampled(jnp.zeros((1, 4, 4, 3)), jnp.zeros(kernel))
