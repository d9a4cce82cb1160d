"""Padded levels with a traced count, real levels, and derivatives through the whole chain."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ddim_jax
from ddim_jax import timesteps

SCHEDULE = ddim_jax.linear_schedule()
KEY = jax.random.key(0)
X_T = jax.random.normal(jax.random.key(1), (2, 3))
LONGEST = 100
SOLVERS = {
  "ddim with noise": ddim_jax.ddim(0.7),
  "dpm_solver_pp(2)": ddim_jax.dpm_solver_pp(2),
  "unipc(2)": ddim_jax.unipc(2),
  "plms(4)": ddim_jax.plms(4),
  "heun": ddim_jax.heun(),
}


def network(weight, schedule=SCHEDULE):
  """A smooth denoiser with something to differentiate."""
  return ddim_jax.as_denoiser(lambda x, t: jnp.tanh(weight * x), schedule, ddim_jax.V)


@pytest.mark.slow
@pytest.mark.parametrize("name", SOLVERS)
def test_padded_levels_give_the_unpadded_result(name):
  @jax.jit
  def draw(ts, count=None):
    seen, solver = lambda step: step, SOLVERS[name]
    return ddim_jax.sample(KEY, network(0.8), SCHEDULE, X_T, ts, solver=solver, count=count, observe=seen)

  for ts in (timesteps.uniform(1000, 3), timesteps.karras(SCHEDULE, 6)):
    x_0, seen = draw(ts)
    padded, count = timesteps.pad(ts, 8)
    y_0, also_seen = draw(padded, count)
    same = functools.partial(chex.assert_trees_all_close, rtol=1e-6, atol=1e-7)  # one unit of rounding
    same((x_0, seen), (y_0, jax.tree.map(lambda leaf, n=count: leaf[:n], also_seen)))
    assert not any(np.any(leaf[count:]) for leaf in jax.tree.leaves(also_seen))


def test_one_trace_for_5_to_100_steps():
  chex.clear_trace_counter()

  @jax.jit
  @chex.assert_max_traces(n=1)
  def run(weight, ts, count):
    return ddim_jax.sample(KEY, network(weight), SCHEDULE, X_T, ts, count=count)[0]

  alone = jax.jit(lambda weight, ts: ddim_jax.sample(KEY, network(weight), SCHEDULE, X_T, ts)[0])
  for S in range(5, LONGEST + 1):
    ts = timesteps.uniform(1000, S)
    got = run(0.8, *timesteps.pad(ts, LONGEST))
    if S in (5, 37, 100):
      np.testing.assert_allclose(got, alone(0.8, ts), rtol=1e-6, atol=1e-6)


def test_steps_beyond_the_count_evaluate_nothing():
  asked = []

  def denoise(x, t):
    jax.debug.callback(lambda t: asked.append(int(t)), t)
    return network(0.8)(x, t)

  run = jax.jit(lambda ts, n: ddim_jax.sample(KEY, denoise, SCHEDULE, X_T, ts, count=n)[0])
  for count in (0, 3):
    asked.clear()
    x_0 = run(*timesteps.pad(np.array([700, 400, 9, 0]), 50)[:1], count).block_until_ready()
    jax.effects_barrier()
    assert sorted(asked, reverse=True) == [700, 400, 9][:count]
  np.testing.assert_array_equal(run(np.zeros(51, int), 0), X_T)
  assert np.all(np.isfinite(x_0))


@pytest.mark.parametrize("remat", [False, True])
def test_padded_gradients_are_the_unpadded_ones(remat):
  def loss(x_T, weight, ts, count):
    solver = ddim_jax.dpm_solver_pp(2)
    return jnp.sum(
      ddim_jax.sample(KEY, network(weight), SCHEDULE, x_T, ts, solver=solver, count=count, remat=remat)[0]
    )

  gradient, ts = jax.jit(jax.grad(loss, argnums=(0, 1))), timesteps.uniform(1000, 4)
  padded, count = timesteps.pad(ts, 7)
  chex.assert_trees_all_close(gradient(X_T, 0.8, ts, None), gradient(X_T, 0.8, padded, count), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddim with noise", "unipc(2)", "heun"])
def test_derivatives_equal_finite_differences(name):
  """Of a loss on x_0, with respect to x_T, the guidance weight, and the (real) levels themselves."""
  with jax.enable_x64(True):
    schedule, x_T = ddim_jax.linear_schedule(), jnp.asarray(np.asarray(X_T, np.float64))
    target = jnp.linspace(-1.0, 1.0, 6).reshape(2, 3)
    ts = jnp.asarray([820.3, 511.7, 300.2, 41.4, 0.0])

    @jax.jit
    def loss(x_T, weight, ts):
      denoise = ddim_jax.guide(network(0.8, schedule), network(0.3, schedule), schedule, weight)
      x_0 = ddim_jax.sample(KEY, denoise, schedule, x_T, ts, solver=SOLVERS[name])[0]
      return jnp.mean((x_0 - target) ** 2)

    point = (x_T, jnp.asarray(1.7), ts)
    gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(*point)
    rng = np.random.default_rng(0)
    ways = [
      (jnp.asarray(rng.standard_normal((2, 3))), jnp.asarray(0.0), jnp.zeros(5)),
      (jnp.zeros((2, 3)), jnp.asarray(1.0), jnp.zeros(5)),
      (jnp.zeros((2, 3)), jnp.asarray(0.0), jnp.asarray([1.0, -0.5, 0.3, 0.2, 0.0])),
    ]
    for way in ways:
      at = lambda h, way=way: float(loss(*(p + h * w for p, w in zip(point, way, strict=True))))
      expected = (at(1e-5) - at(-1e-5)) / 2e-5
      got = sum(float(jnp.sum(g * w)) for g, w in zip(gradient, way, strict=True))
      assert got == pytest.approx(expected, rel=1e-6, abs=1e-9)
      assert abs(expected) > 1e-5


@pytest.mark.slow
def test_memory_of_the_gradient_is_flat_in_S_with_recomputation():
  """A real U-Net: what S adds is one sample a step, not one network's activations."""
  unet = ddim_jax.UNet(
    channels=16, multipliers=(1,), blocks=1, attention=(), dropout=0.0, out_channels=1, groups=8
  )
  x_T = jnp.ones((2, 16, 16, 1))
  params = jax.eval_shape(unet.init, KEY, x_T, jnp.int32(1))["params"]

  def loss(params, x_T, ts):
    denoise = ddim_jax.as_denoiser(lambda x, t: unet.apply({"params": params}, x, t), SCHEDULE)
    return jnp.sum(ddim_jax.sample(KEY, denoise, SCHEDULE, x_T, ts, remat=True)[0])

  def memory(S):
    lowered = jax.jit(jax.grad(loss, argnums=1)).lower(params, x_T, timesteps.uniform(1000, S))
    return lowered.compile().memory_analysis().temp_size_in_bytes

  short, long = memory(10), memory(100)
  assert long - short < 1.1 * 90 * x_T.nbytes
  assert long < 1.2 * short
