import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ddim_jax
from ddim_jax import timesteps
from tests import oracles

SCHEDULE = ddim_jax.linear_schedule()
ALPHA_BAR = oracles.linear_alpha_bar()
MEAN, STD = 0.3, 0.5
KEY = jax.random.key(0)


def gaussian(schedule=SCHEDULE, mean=MEAN, variance=STD**2):
  """The exact denoiser of normal data."""

  def network(x, t):
    alpha_bar = schedule.alpha_bar[t].reshape(jnp.shape(t) + (1,) * (x.ndim - jnp.ndim(t))).astype(x.dtype)
    return oracles.gaussian_eps(x, alpha_bar, mean, variance)

  return ddim_jax.as_denoiser(network, schedule)


def nonlinear(weight=1.0, schedule=SCHEDULE):
  """A smooth network with something to differentiate."""
  return ddim_jax.as_denoiser(lambda x, t: jnp.tanh(weight * x) * 0.9, schedule)


@pytest.mark.parametrize(
  "ts", [timesteps.uniform(1000, 10), timesteps.quadratic(1000, 20), timesteps.trailing(1000, 50)]
)
def test_gaussian_data_has_the_moments_of_the_recursion(ts):
  x_T, key = jax.random.normal(KEY, (40_000, 1)), jax.random.key(1)
  run = jax.jit(lambda eta: ddim_jax.sample(key, gaussian(), SCHEDULE, x_T, ts, solver=ddim_jax.ddim(eta))[0])
  for eta in (0.0, 0.5, 1.0):
    x_0 = run(eta)
    mean, variance = oracles.gaussian_moments(ALPHA_BAR, ts, eta, MEAN, STD**2)
    assert np.mean(x_0) == pytest.approx(mean, abs=4 * np.sqrt(variance / 40_000))
    assert np.var(x_0) == pytest.approx(variance, rel=4 * np.sqrt(2 / 40_000))


def test_many_steps_reach_the_data_distribution():
  ts = timesteps.uniform(1000, 1000)
  for eta in (0.0, 1.0):
    mean, variance = oracles.gaussian_moments(ALPHA_BAR, ts, eta, MEAN, STD**2)
    assert (mean, variance) == pytest.approx((MEAN, STD**2), rel=0.02)


@functools.partial(jax.jit, static_argnums=2)
def there_and_back(x0, ts, refine):
  denoise = gaussian(mean=0.0)
  x_T = ddim_jax.invert(denoise, SCHEDULE, x0, ts, refine=refine)
  return ddim_jax.sample(KEY, denoise, SCHEDULE, x_T, ts)[0]


def round_trip(S, refine, spacing=timesteps.uniform):
  x0 = MEAN + STD * jax.random.normal(KEY, (16, 8))
  return float(jnp.linalg.norm(there_and_back(x0, spacing(1000, S), refine) - x0) / jnp.linalg.norm(x0))


def test_plain_inversion_is_of_first_order():
  errors = {S: round_trip(S, 0) for S in (50, 100, 1000)}
  assert errors[50] == pytest.approx(0.11, rel=0.05)
  assert errors[1000] == pytest.approx(0.0056, rel=0.05)
  assert errors[50] / errors[100] == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize("spacing", [timesteps.uniform, timesteps.quadratic, timesteps.trailing])
def test_refined_inversion_is_exact(spacing):
  assert round_trip(50, 5, spacing) < 1e-4
  assert round_trip(50, 2, spacing) < round_trip(50, 0, spacing) / 20


def test_inversion_never_asks_at_level_0():
  asked = []

  def denoise(x, t):
    jax.debug.callback(lambda t: asked.append(int(t)), t)
    return gaussian()(x, t)

  jax.block_until_ready(
    ddim_jax.invert(denoise, SCHEDULE, jnp.ones((1, 2)), np.array([9, 5, 2, 0]), refine=1)
  )
  jax.effects_barrier()
  assert sorted(asked) == [1, 2, 2, 5, 5, 9]


def test_one_trace_across_values():
  @jax.jit
  @chex.assert_max_traces(n=1)
  def run(weight, schedule, eta, guidance, key, x_T, ts):
    plain = nonlinear(weight, schedule)
    denoise = ddim_jax.guide(plain, nonlinear(2 * weight, schedule), schedule, guidance)
    return ddim_jax.sample(key, denoise, schedule, x_T, ts, solver=ddim_jax.ddim(eta))[0]

  x_T, seen = jnp.ones((2, 3)), set()
  for eta in (0.0, 0.5, 1.0):
    for schedule in (SCHEDULE, ddim_jax.cosine_schedule()):
      for spacing in (timesteps.uniform, timesteps.trailing):
        key = jax.random.key(len(seen))
        out = run(1.0 + eta, schedule, eta, 2.0 + eta, key, x_T, spacing(1000, 6))
        seen.add(float(out.sum()))
  assert len(seen) == 12


@pytest.mark.parametrize("shape", [(4,), (4, 2), (4, 16, 3), (4, 8, 8, 1), (2, 3, 4, 4, 1)])
def test_points_sequences_images_video(shape):
  x_T = ddim_jax.initial_noise(KEY, shape)
  x_0, seen = ddim_jax.sample(KEY, gaussian(), SCHEDULE, x_T, timesteps.uniform(1000, 3))
  chex.assert_shape(x_0, shape)
  chex.assert_shape(ddim_jax.invert(gaussian(), SCHEDULE, x_0, timesteps.uniform(1000, 3)), shape)
  assert seen is None


@pytest.mark.parametrize("ts", [timesteps.uniform(1000, 1), timesteps.explicit(1000, [1000])])
def test_a_single_step(ts):
  x_T = ddim_jax.initial_noise(KEY, (3, 2))
  x_0, _ = ddim_jax.sample(KEY, gaussian(), SCHEDULE, x_T, ts)
  np.testing.assert_allclose(x_0, gaussian()(x_T, ts[0]).x0, atol=1e-5)


def test_observe_gives_the_trajectory():
  ts, x_T = timesteps.uniform(1000, 5), ddim_jax.initial_noise(KEY, (2, 3))
  x_0, seen = ddim_jax.sample(KEY, gaussian(), SCHEDULE, x_T, ts, observe=lambda step: step)
  np.testing.assert_array_equal(seen.t, ts[:-1])
  np.testing.assert_array_equal(seen.s, ts[1:])
  chex.assert_shape([seen.x_t, seen.x_s, seen.prediction.x0], (5, 2, 3))
  np.testing.assert_array_equal(seen.x_t[0], x_T)
  np.testing.assert_array_equal(seen.x_t[1:], seen.x_s[:-1])
  np.testing.assert_array_equal(seen.x_s[-1], x_0)
  np.testing.assert_allclose(seen.prediction.x0[-1], x_0, rtol=1e-6)


def test_an_image_is_its_seed_and_number():
  """Whatever the batch, its order, jit, vmap or the number of devices."""
  ts, solver = timesteps.uniform(1000, 8), ddim_jax.ddim(1.0)

  def draw(indices):
    keys = ddim_jax.image_keys(KEY, indices)
    x_T = ddim_jax.initial_noise(keys, (*indices.shape, 4, 4, 1))
    return ddim_jax.sample(keys, nonlinear(), SCHEDULE, x_T, ts, solver=solver)[0]

  whole = draw(jnp.arange(8))
  assert len({float(image.sum()) for image in whole}) == 8
  same = functools.partial(np.testing.assert_allclose, atol=1e-5)
  same(whole[jnp.array([6, 1])], jax.jit(draw)(jnp.array([6, 1])))
  same(whole, jax.jit(draw)(jnp.arange(8)))
  same(whole, jax.jit(jax.vmap(draw))(jnp.arange(8).reshape(2, 4)).reshape(whole.shape))
  same(whole, jax.pmap(draw)(jnp.arange(8).reshape(4, 2)).reshape(whole.shape))


def test_old_style_keys_are_the_same_keys():
  ts, x_T = timesteps.uniform(1000, 3), jnp.ones((2, 3))
  run = jax.jit(
    lambda key: ddim_jax.sample(key, nonlinear(), SCHEDULE, x_T, ts, solver=ddim_jax.ddim(1.0))[0]
  )
  np.testing.assert_array_equal(run(jax.random.PRNGKey(7)), run(jax.random.key(7)))
  old = jax.random.split(jax.random.PRNGKey(7), 2)
  np.testing.assert_array_equal(run(old), run(jax.random.split(jax.random.key(7), 2)))


def test_noise_is_fresh_at_every_step_and_for_every_image():
  ts, x_T = timesteps.uniform(1000, 4), jnp.zeros((3, 1))
  zero = lambda x, t: ddim_jax.Prediction(jnp.zeros_like(x), jnp.zeros_like(x))
  for key in (KEY, ddim_jax.image_keys(KEY, jnp.arange(3))):
    observe = lambda step: step.x_s
    noise = ddim_jax.sample(key, zero, SCHEDULE, x_T, ts, solver=ddim_jax.ddim(1.0), observe=observe)[1]
    start = ddim_jax.initial_noise(key, (3, 1))
    scaled = noise[:-1] / SCHEDULE.sigma[ts[1:-1]][:, None, None]
    assert len(np.unique(np.concatenate([scaled, start[None]]))) == 12


def test_gradients_with_and_without_recomputation():
  ts, x_T = timesteps.uniform(1000, 6), ddim_jax.initial_noise(KEY, (2, 3))

  def loss(x_T, weight, remat):
    return jnp.sum(ddim_jax.sample(KEY, nonlinear(weight), SCHEDULE, x_T, ts, remat=remat)[0] ** 2)

  gradient = jax.jit(jax.grad(loss, argnums=(0, 1)), static_argnums=2)
  plain, recomputed = gradient(x_T, 1.1, False), gradient(x_T, 1.1, True)
  chex.assert_trees_all_close(plain, recomputed, rtol=1e-5)
  with jax.enable_x64(True):
    run = jax.jit(lambda w: loss(x_T.astype(jnp.float64), w, False))
    exact = lambda w: float(run(w))
    assert plain[1] == pytest.approx((exact(1.1 + 1e-5) - exact(1.1 - 1e-5)) / 2e-5, rel=1e-3)


def test_recomputation_saves_the_networks_activations():
  """Temporary memory of the compiled gradient: S wide activations without, S states with."""
  ts, x_T = timesteps.uniform(1000, 50), jnp.ones((8, 16))
  wide = jax.random.normal(KEY, (16, 2048)) / 4

  def loss(x_T, wide, remat):
    denoise = ddim_jax.as_denoiser(lambda x, t: jnp.tanh(x @ wide) @ wide.T / 512, SCHEDULE)
    return jnp.sum(ddim_jax.sample(KEY, denoise, SCHEDULE, x_T, ts, remat=remat)[0])

  memory = {}
  for remat in (False, True):
    compiled = jax.jit(jax.grad(loss), static_argnums=2).lower(x_T, wide, remat).compile()
    memory[remat] = compiled.memory_analysis().temp_size_in_bytes
  activations = 50 * 8 * 2048 * 4
  assert memory[False] > activations
  assert memory[True] < activations / 5


class Variants(chex.TestCase):
  @chex.variants(with_jit=True, without_jit=True, with_pmap=True)
  def test_sample_and_invert(self):
    ts = timesteps.uniform(1000, 50)
    x0 = jax.random.normal(KEY, (2, 3))
    run = self.variant(lambda x: ddim_jax.invert(gaussian(), SCHEDULE, x, ts, refine=5))
    x_T = np.asarray(run(x0)).reshape(-1, 2, 3)[0]
    back = self.variant(lambda x: ddim_jax.sample(KEY, gaussian(), SCHEDULE, x, ts)[0])(x_T)
    np.testing.assert_allclose(np.asarray(back).reshape(-1, 2, 3)[0], x0, atol=1e-4)


def test_slerp():
  a, b = jax.random.normal(KEY, (2, 5, 6, 6, 1))
  slerp = jax.jit(ddim_jax.slerp)
  np.testing.assert_allclose(slerp(a, b, 0.0), a, atol=1e-6)
  np.testing.assert_allclose(slerp(a, b, 1.0), b, atol=1e-6)
  right_angle = ddim_jax.slerp(jnp.array([[2.0, 0.0]]), jnp.array([[0.0, 2.0]]), 1 / 3)
  np.testing.assert_allclose(right_angle, [[2 * np.cos(np.pi / 6), 2 * np.sin(np.pi / 6)]], rtol=1e-6)
  each = slerp(a, b, jnp.array([0.0, 0.25, 0.5, 0.75, 1.0]))
  for i, w in enumerate((0.0, 0.25, 0.5, 0.75, 1.0)):
    np.testing.assert_allclose(each[i], slerp(a[i : i + 1], b[i : i + 1], w)[0], atol=1e-6)


@pytest.mark.parametrize("b", [1.0, 2.0, -1.0, 0.0])
def test_slerp_of_parallel_opposite_and_zero_noise_is_finite(b):
  a = jax.random.normal(KEY, (3, 4))
  value, gradient = jax.jit(jax.value_and_grad(lambda a: jnp.sum(ddim_jax.slerp(a, b * a, 0.3))))(a)
  chex.assert_tree_all_finite((value, gradient))
  np.testing.assert_allclose(ddim_jax.slerp(a, b * a, 0.3), 0.7 * a + 0.3 * b * a, atol=1e-6)


def test_interpolate_meets_its_ends():
  ts, solver = timesteps.uniform(1000, 5), ddim_jax.ddim(0.5)
  keys = ddim_jax.image_keys(KEY, jnp.arange(2))
  a, b = ddim_jax.initial_noise(KEY, (2, 2, 3))
  weights = jnp.linspace(0, 1, 4)
  between = jax.jit(
    lambda a, b: ddim_jax.interpolate(keys, nonlinear(), SCHEDULE, a, b, ts, weights, solver=solver)
  )(a, b)
  chex.assert_shape(between, (4, 2, 3))
  for end, noise in ((0, a), (-1, b)):
    alone = ddim_jax.sample(keys, nonlinear(), SCHEDULE, noise, ts, solver=solver)[0]
    np.testing.assert_allclose(between[end], alone, atol=1e-4)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"ts": np.array([3])}, "at least two"),
    ({"ts": np.array([[3, 0]])}, "vector"),
    ({"ts": np.array([True, False])}, "integer or floating, got bool"),
    ({"x_T": jnp.ones((2, 2), jnp.int32)}, "floating-point"),
    ({"x_T": jnp.ones(())}, "batch"),
    ({"key": jax.random.split(KEY, 3)}, r"one per image, \(2,\); got shape \(3,\)"),
  ],
)
def test_sample_refuses(change, message):
  arguments = {"key": KEY, "x_T": jnp.ones((2, 2)), "ts": np.array([3, 0])} | change
  with pytest.raises(ValueError, match=message):
    ddim_jax.sample(denoise=nonlinear(), schedule=SCHEDULE, **arguments)


def test_others_refuse():
  ts, x = timesteps.uniform(1000, 2), jnp.ones((2, 2))
  with pytest.raises(ValueError, match="refine must be at least 0, got -1"):
    ddim_jax.invert(nonlinear(), SCHEDULE, x, ts, refine=-1)
  with pytest.raises(ValueError, match="same shape"):
    ddim_jax.slerp(x, x[:1], 0.5)
  with pytest.raises(ValueError, match="weights must be a vector"):
    ddim_jax.interpolate(KEY, nonlinear(), SCHEDULE, x, x, ts, 0.5)
