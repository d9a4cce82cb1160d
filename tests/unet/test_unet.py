import contextlib

import chex
import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ddim_jax
from ddim_jax.unet import time_embedding
from ddim_jax.unet.layers import dropout, group_norm
from ddim_jax.unet.operations import Operations, named
from tests import oracles
from tests.helpers import random_variables, shapes

KEY = jax.random.key(0)
SMALL = {"channels": 32, "multipliers": (1, 2), "blocks": 1, "attention": (4,), "groups": 8}
SHALLOW = SMALL | {"multipliers": (1,), "attention": (8,)}
TINY = SHALLOW | {"attention": ()}
"""Attention in the middle only."""


INITIAL = ddim_jax.UNet(**SMALL)


@pytest.fixture(scope="module")
def initial_variables():
  """Variables as training starts with them."""
  return jax.jit(INITIAL.init)(KEY, jnp.zeros((1, 8, 8, 3)), jnp.ones((), jnp.int32))


def count(model, shape):
  return sum(leaf.size for leaf in jax.tree.leaves(shapes(model, shape)))


@pytest.mark.slow
def test_parameter_counts_of_the_published_networks():
  """DDPM, appendix B, gives 35.7 M for CIFAR-10 and 114 M for LSUN and CelebA-HQ at 256."""
  assert count(ddim_jax.UNet(), (1, 32, 32, 3)) == 35_746_307
  assert count(ddim_jax.UNet(multipliers=(1, 2, 2, 2, 4)), (1, 64, 64, 3)) == 78_700_803
  large = ddim_jax.UNet(multipliers=(1, 1, 2, 2, 4, 4), dropout=0.0)
  assert count(large, (1, 256, 256, 3)) == 113_673_219


@pytest.mark.slow
@pytest.mark.parametrize("size", [32])
def test_count_equals_diffusers(size):
  pytest.importorskip("torch")
  diffusers = pytest.importorskip("diffusers")
  theirs = diffusers.UNet2DModel(
    sample_size=size,
    block_out_channels=(128, 256, 256, 256),
    layers_per_block=2,
    attention_head_dim=None,
    down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
  )
  assert count(ddim_jax.UNet(), (1, size, size, 3)) == theirs.num_parameters()


@pytest.mark.parametrize(
  ("config", "size"),
  [
    (SMALL | {"num_classes": 3}, 8),
    pytest.param(
      SMALL | {"channels": 64, "groups": 32, "blocks": 2, "multipliers": (1, 1, 2), "attention": (8, 4)},
      16,
      marks=pytest.mark.slow,
    ),
  ],
)
def test_equals_a_torch_composition_of_the_same_network(config, size):
  pytest.importorskip("torch")
  model = ddim_jax.UNet(**config, out_channels=2)
  variables = random_variables(model, (1, size, size, 2))
  x = jax.random.normal(KEY, (3, size, size, 2), jnp.float32)
  t, label = jnp.array([1, 500, 1000]), jnp.array([0, 2, 3])
  label = label if "num_classes" in config else None
  ours = jax.jit(model.apply)(variables, x, t, label)
  arguments = {k: v for k, v in config.items() if k != "num_classes"}
  flat = flax.traverse_util.flatten_dict(variables["params"], sep="/")
  theirs = oracles.torch_unet(flat, x, t, label=label, **arguments)
  assert np.linalg.norm(ours - theirs) / np.linalg.norm(theirs) < 5e-6
  assert np.std(theirs) > 0.05


def test_time_embedding_of_levels_is_of_t_minus_1():
  embedding = time_embedding(jnp.array([1, 2]), 8)
  np.testing.assert_allclose(embedding[0], [0, 0, 0, 0, 1, 1, 1, 1], atol=1e-7)
  angles = 10000.0 ** -(np.arange(4) / 3)
  np.testing.assert_allclose(embedding[1], np.concatenate([np.sin(angles), np.cos(angles)]), rtol=1e-5)


@pytest.mark.slow
def test_initial_output_is_nearly_zero_and_blocks_are_the_identity(initial_variables):
  output = jax.jit(INITIAL.apply)(initial_variables, jax.random.normal(KEY, (4, 8, 8, 3)), jnp.array(500))
  assert 0 < np.abs(output).max() < 1e-4


@pytest.mark.slow
def test_initialisers_are_the_ddpm_codes(initial_variables):
  """Uniform of variance 1 / fan_avg; 1e-10 of it where the network starts as the identity."""
  flat = flax.traverse_util.flatten_dict(initial_variables["params"], sep="/")
  for name, leaf in flat.items():
    if name.endswith("kernel"):
      fan_in, fan_out = np.prod(leaf.shape[:-1]), np.prod(leaf.shape[:-2]) * leaf.shape[-1]
      near_zero = any(part in name for part in ("conv2", "attention_0/out", "attention_1/out", "conv_out"))
      near_zero |= name == "middle_attention/out/kernel" or "attention_2/out" in name
      bound = np.sqrt(3 * (1e-10 if near_zero else 1.0) / ((fan_in + fan_out) / 2))
      assert 0.97 * bound < np.abs(leaf).max() <= bound * (1 + 1e-6), name
    else:
      assert np.all(np.asarray(leaf) == (1 if name.endswith("scale") else 0)), name


@pytest.mark.slow
def test_bfloat16_is_close_and_keeps_float32_parameters():
  x, t = jax.random.normal(KEY, (4, 8, 8, 3)), jnp.array([1, 10, 500, 1000])
  model = ddim_jax.UNet(**SMALL)
  half = ddim_jax.UNet(**SMALL, dtype=jnp.bfloat16)
  variables = random_variables(model, x.shape)
  chex.assert_trees_all_equal_shapes_and_dtypes(shapes(model, x.shape), shapes(half, x.shape))
  full, low = jax.jit(model.apply)(variables, x, t), jax.jit(half.apply)(variables, x, t)
  assert low.dtype == jnp.float32
  assert 1e-4 < np.linalg.norm(full - low) / np.linalg.norm(full) < 0.03


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"multipliers": (1, 1), "resample": "block", "heads": 2}])
def test_remat_changes_neither_parameters_nor_gradients_with_dropout(options):
  x, t = jax.random.normal(KEY, (2, 8, 8, 3)), jnp.array(300)
  variables = random_variables(ddim_jax.UNet(**SHALLOW | options), x.shape)

  def gradient(remat):
    model = ddim_jax.UNet(**SHALLOW | options, remat=remat)
    chex.assert_trees_all_equal_shapes(variables, shapes(model, x.shape))
    loss = lambda v: jnp.sum(model.apply(v, x, t, train=True, rngs={"dropout": KEY}) ** 2)
    return jax.jit(jax.grad(loss))(variables)

  chex.assert_trees_all_close(gradient(False), gradient(True), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_dropout_acts_in_training_only():
  model, x = ddim_jax.UNet(**TINY, dropout=0.5), jnp.ones((1, 8, 8, 3))
  variables = random_variables(model, x.shape)
  train = jax.jit(lambda key: model.apply(variables, x, 5, train=True, rngs={"dropout": key}))
  assert np.abs(train(KEY) - train(jax.random.key(1))).max() > 1e-3
  use = jax.jit(lambda key: model.apply(variables, x, 5, rngs={"dropout": key}))
  np.testing.assert_array_equal(use(KEY), use(jax.random.key(1)))


@pytest.mark.slow
def test_dropout_of_an_image_comes_from_its_key():
  model, x = ddim_jax.UNet(**TINY, dropout=0.5), jax.random.normal(KEY, (3, 8, 8, 3))
  variables, keys = random_variables(model, x.shape), jax.random.split(KEY, 3)
  train = jax.jit(lambda x, keys: model.apply(variables, x, 5, train=True, keys=keys))
  together = train(x, keys)
  for i in range(3):
    np.testing.assert_allclose(train(x[i : i + 1], keys[i : i + 1])[0], together[i], rtol=0, atol=1e-4)
  others = train(x, keys[::-1])
  np.testing.assert_allclose(others[1], together[1], rtol=0, atol=1e-4)
  assert np.abs(others[0] - together[0]).max() > 1e-2
  with pytest.raises(ValueError, match=r"keys must be \[3\], one for each image"):
    train(x, keys[:2])


@pytest.mark.parametrize("rate", [0.1, 0.75])
def test_dropout_zeroes_at_its_rate_and_keeps_the_mean(rate):
  kept = np.asarray(dropout(jnp.full((4, 50, 50, 8), 3.0), jax.random.split(KEY, 4), rate))
  number = kept[0].size
  for image in kept:
    zeros = np.sum(image == 0)
    assert abs(zeros - number * rate) < 5 * (number * rate * (1 - rate)) ** 0.5
    np.testing.assert_allclose(image[image != 0], 3 / (1 - rate), rtol=1e-6)
  assert np.any(kept[0] != kept[1])


def test_dropout_is_chosen_once_and_kept_for_the_backward_pass():
  """Random numbers that a compiler may move into the kernels that need them would be made in each of them."""
  x, keys = jnp.ones((2, 8, 8, 4)), jax.random.split(KEY, 2)
  forward = jax.make_jaxpr(lambda x: dropout(x, keys, 0.1))(x)
  both = jax.make_jaxpr(jax.grad(lambda x: jnp.sum(dropout(x, keys, 0.1) ** 2)))(x)
  assert str(both).count("random_bits") == str(forward).count("random_bits") == 1
  (barrier,) = [e for e in both.eqns if e.primitive.name == "optimization_barrier"]
  assert [(v.aval.shape, v.aval.dtype) for v in barrier.outvars] == [(x.shape, jnp.bool_)]


def test_no_label_is_the_null_class():
  model, x = ddim_jax.UNet(**TINY, num_classes=4), jnp.ones((2, 8, 8, 3))
  variables = random_variables(model, x.shape)
  apply = jax.jit(model.apply)
  none = apply(variables, x, 5)
  np.testing.assert_array_equal(none, apply(variables, x, 5, jnp.array([4, 4])))
  assert np.abs(none - apply(variables, x, 5, jnp.array([0, 1]))).max() > 1e-3


@pytest.mark.slow
def test_scalar_and_vector_levels_agree():
  model, x = ddim_jax.UNet(**TINY), jax.random.normal(KEY, (3, 8, 8, 3))
  variables = random_variables(model, x.shape)
  apply = jax.jit(model.apply)
  for same in (jnp.full(3, 7), 7.0, jnp.full(3, 7.0)):
    np.testing.assert_allclose(apply(variables, x, same), apply(variables, x, 7), atol=1e-5)


@pytest.mark.parametrize(
  ("config", "x", "kwargs", "message"),
  [
    ({}, (1, 8, 8, 1), {}, r"\[B, H, W, 3\], got \(1, 8, 8, 1\)"),
    ({}, (8, 8, 3), {}, "B, H, W, 3"),
    ({}, (1, 9, 8, 3), {}, "multiples of 2 for 2 levels, got 9x8"),
    ({}, (1, 16, 16, 3), {}, r"attention at heights \[4\].*levels of \[16, 8\]"),
    ({}, (2, 8, 8, 3), {"t": jnp.ones(3, int)}, r"t must be a scalar or \[2\]"),
    ({}, (2, 8, 8, 3), {"labels": jnp.ones(2, int)}, "without num_classes"),
    ({"num_classes": 3}, (2, 8, 8, 3), {"labels": jnp.ones(3, int)}, r"labels must be \[2\]"),
    ({"groups": 5}, (2, 8, 8, 3), {}, "multiple of groups = 5"),
    ({"channels": 33, "groups": 1}, (2, 8, 8, 3), {}, "channels must be even"),
  ],
)
def test_refuses(config, x, kwargs, message):
  arguments = {"t": jnp.array(5)} | kwargs
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(lambda: ddim_jax.UNet(**SMALL | config).init(KEY, jnp.zeros(x), **arguments))


@pytest.mark.parametrize("platform", ["cpu", "default"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_group_norm_equals_torch(dtype, platform):
  torch = pytest.importorskip("torch")
  rng = np.random.default_rng(0)
  x, scale, bias = (rng.standard_normal(shape).astype(np.float32) for shape in ((2, 4, 6, 8), 8, 8))
  x = np.asarray(jnp.asarray(3 * x + 1, dtype), np.float32)
  norm = Norm(getattr(named("auto"), platform))
  ours = norm.apply({"params": {"n": {"scale": scale, "bias": bias}}}, jnp.asarray(x, dtype))
  tensors = (torch.tensor(a) for a in (np.moveaxis(x, -1, 1), scale, bias))
  image, weight, shift = tensors
  theirs = torch.nn.functional.group_norm(image, 4, weight, shift, 1e-6).numpy()
  assert ours.dtype == dtype
  tolerance = 1e-5 if dtype == jnp.float32 else 2e-2
  np.testing.assert_allclose(np.asarray(ours, np.float32), np.moveaxis(theirs, 1, -1), atol=tolerance)


class Norm(nn.Module):
  operations: Operations

  @nn.compact
  def __call__(self, x):
    return group_norm(x, 4, 1e-6, self.operations, x.dtype, "n")


@pytest.mark.parametrize("conv", ["direct", pytest.param("winograd", marks=pytest.mark.slow)])
def test_devices_that_share_a_batch_exchange_nothing(exchanges, conv):
  model = ddim_jax.UNet(**SMALL | {"num_classes": 3, "conv": conv})
  x, t, labels = jnp.zeros((8, 8, 8, 3)), jnp.ones((8,), jnp.int32), jnp.zeros((8,), jnp.int32)
  variables = jax.eval_shape(model.init, KEY, x, t, labels)
  assert not exchanges(model.apply, variables, x, t, labels)


@pytest.mark.slow
@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("axes", [("batch",), (None, "batch"), ("batch", "more")])
def test_vmap_over_axes_of_a_mesh_that_are_explicit(axes, inside):
  """Over an axis that is sharded, over another than that, and over one of two."""
  model = ddim_jax.UNet(**SMALL | {"channels": 8, "groups": 4})
  variables = random_variables(model, (1, 8, 8, 3))
  x = jax.random.normal(KEY, (4, 2, 8, 8, 3), jnp.float32)
  each = lambda variables, x, t: model.apply(variables, x, t)
  apply = jax.jit(jax.vmap(each, (None, 0, 0)))
  t = jnp.arange(1, 5)
  expected = apply(variables, x, t)
  mesh = jax.make_mesh((2, 2), ("batch", "more"))
  place = lambda tree, *axes: jax.device_put(tree, jax.NamedSharding(mesh, jax.P(*axes)))
  with jax.set_mesh(mesh) if inside else contextlib.nullcontext():
    got = apply(place(variables), place(x, *axes), place(t, axes[0]))
  assert tuple(got.sharding.spec)[: len(axes)] == axes
  np.testing.assert_allclose(got, expected, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("inside", [True, False])
def test_sampling_on_a_mesh_with_explicit_axes(inside):
  """With the mesh set, or known from the arrays alone; network and sampler are not wrapped."""
  model, schedule = ddim_jax.UNet(**SMALL | {"channels": 8, "groups": 4}), ddim_jax.linear_schedule()
  ts = ddim_jax.timesteps.uniform(1000, 2)
  variables = random_variables(model, (1, 8, 8, 3))
  keys = ddim_jax.image_keys(KEY, jnp.arange(8))
  x_T = ddim_jax.initial_noise(keys, (8, 8, 8, 3))

  @jax.jit
  def draw(variables, keys, x_T):
    network = lambda x, t: model.apply(variables, x, t, train=True, keys=keys)
    denoise = ddim_jax.clip_x0(ddim_jax.as_denoiser(network, schedule), schedule)
    return ddim_jax.sample(keys, denoise, schedule, x_T, ts, solver=ddim_jax.ddim(1.0))[0]

  expected = np.asarray(draw(variables, keys, x_T))
  mesh = jax.make_mesh((4,), ("batch",))
  place = lambda tree, *axes: jax.device_put(tree, jax.NamedSharding(mesh, jax.P(*axes)))
  with jax.set_mesh(mesh) if inside else contextlib.nullcontext():
    got = draw(place(variables), place(keys, "batch"), place(x_T, "batch"))
  assert got.sharding.spec[0] == "batch"
  np.testing.assert_allclose(got, expected, atol=1e-4)
