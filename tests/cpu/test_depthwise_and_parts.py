"""Depthwise convolutions as sums and batches in parts, against their definitions; for a CPU alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddim_jax.cpu import depthwise, parts
from ddim_jax.metrics.efficientnet import SIDE, EfficientNetLite0


@pytest.mark.parametrize("number", [1, 8, 13])
def test_parts_are_the_whole(number):
  x = jnp.arange(number * 6, dtype=jnp.float32).reshape(number, 3, 2)
  apply = lambda x: (jnp.sum(x, axis=1) ** 2, {"first": x[:, 0, 0]})
  jax.tree.map(np.testing.assert_array_equal, jax.jit(lambda x: parts.in_parts(apply, x))(x), apply(x))
  lowered = jax.jit(lambda x: parts.in_parts(apply, x)).trace(x)
  loops = lambda platform: "stablehlo.while" in lowered.lower(lowering_platforms=(platform,)).as_text()
  assert (loops("cpu"), loops("tpu")) == (number > 1, False)


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("sides", [(8, 8), (7, 10), (1, 2)])
def test_it_is_the_definition(size, stride, sides):
  rng = np.random.default_rng(0)
  x, kernel = rng.normal(size=(2, *sides, 6)), rng.normal(size=(size, size, 1, 6))
  expected = jax.lax.conv_general_dilated(
    x.astype(np.float32), kernel.astype(np.float32), (stride, stride), "SAME", feature_group_count=6,
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )  # fmt: skip
  found = depthwise.convolve(jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32), stride)
  np.testing.assert_allclose(found, expected, atol=1e-5)


def test_another_kernel_is_refused():
  with pytest.raises(ValueError, match=r"kernel \[K, K, 1, C\], got .* and \(3, 3, 2, 6\)"):
    depthwise.convolve(jnp.zeros((1, 8, 8, 6)), jnp.zeros((3, 3, 2, 6)))


@pytest.mark.slow
def test_only_programs_for_a_cpu_have_sums():
  model = EfficientNetLite0()
  x = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), jnp.float32)
  params = jax.eval_shape(model.init, jax.random.key(0), x)
  count = lambda platform: (
    jax.jit(model.apply)
    .trace(params, x)
    .lower(lowering_platforms=(platform,))
    .as_text()
    .count("stablehlo.convolution")
  )
  blocks = 16
  assert count("cuda") - count("cpu") == blocks
  assert count("tpu") == count("cuda")
