import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

import ddim_jax
from ddim_jax import bijective, parallel, timesteps
from tests import oracles

SCHEDULE = ddim_jax.linear_schedule()
KEY = jax.random.key(0)
KEYS = ddim_jax.image_keys(KEY, jnp.arange(3))
X_T = ddim_jax.initial_noise(KEYS, (3, 4))
S = 40
TS = timesteps.uniform(1000, S)


def mixture(x, t):
  """E[eps | x_t] of data at +-0.5 with a spread of 0.1: a network that is far from linear."""
  alpha_bar = SCHEDULE.alpha_bar[t].astype(x.dtype)
  variance = alpha_bar * 0.01 + 1 - alpha_bar
  likely = jax.nn.sigmoid(2 * jnp.sqrt(alpha_bar) * 0.5 * x / variance)
  at = lambda mean: oracles.gaussian_eps(x, alpha_bar, mean, 0.01)
  return likely * at(0.5) + (1 - likely) * at(-0.5)


DENOISE = ddim_jax.as_denoiser(mixture, SCHEDULE)


def sequential(solver, key=KEYS, ts=TS):
  return ddim_jax.sample(key, DENOISE, SCHEDULE, X_T, ts, solver=solver)[0]


@pytest.mark.parametrize("solver", [ddim_jax.ddim(), ddim_jax.ddim(0.7), ddim_jax.ddpm("large")])
@pytest.mark.parametrize("window", [None, 8])
def test_the_same_samples_in_fewer_rounds(solver, window):
  run = jax.jit(
    lambda tolerance: parallel.sample_parallel(
      KEYS, DENOISE, SCHEDULE, X_T, TS, solver=solver, window=window, tolerance=tolerance
    )
  )
  expected = sequential(solver)
  for tolerance in (1e-2, 1e-3):
    x_0, rounds = run(tolerance)
    np.testing.assert_allclose(x_0, expected, atol=10 * tolerance)
    assert S / (window or S) <= int(rounds) < 0.75 * S
  exact, rounds = run(0.0)
  np.testing.assert_allclose(exact, expected, atol=1e-4)
  assert int(rounds) <= S


def test_a_window_of_one_step_is_sample():
  x_0, rounds = parallel.sample_parallel(KEY, DENOISE, SCHEDULE, X_T, TS, window=1)
  np.testing.assert_allclose(x_0, sequential(ddim_jax.ddim(), KEY), atol=1e-4)
  assert int(rounds) == S


def test_a_network_that_ignores_its_input_takes_one_round_to_settle_and_one_to_notice():
  denoise = lambda x, t: ddim_jax.Prediction(jnp.full_like(x, 0.5), x - 0.5)
  still = ddim_jax.Solver(lambda x: (), lambda d, sc, c, x, t, s, z: (x + 0.1, c, d(x, t)))
  x_0, rounds = parallel.sample_parallel(KEY, denoise, SCHEDULE, X_T, TS, solver=still)
  np.testing.assert_allclose(x_0, X_T + 0.1 * S, rtol=1e-4)
  assert int(rounds) == 2


@pytest.mark.slow
def test_four_devices_share_the_steps():
  """With pmap and with shard_map, and every device evaluates a quarter of the window."""

  def run(x_T, axis_name=None):
    return parallel.sample_parallel(KEYS, DENOISE, SCHEDULE, x_T, TS, window=8, axis_name=axis_name)

  alone = jax.jit(run)(X_T)
  split = lambda x: run(x, "steps")
  mapped = jax.pmap(lambda x, _: split(x), "steps", in_axes=(None, 0), out_axes=None)(X_T, jnp.arange(4))
  mesh, spec = Mesh(jax.devices()[:4], "steps"), PartitionSpec()
  sharded = jax.jit(jax.shard_map(split, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False))(X_T)
  for other in (mapped, sharded):
    np.testing.assert_allclose(other.x_0, alone.x_0, atol=1e-5)
    assert int(other.rounds) == int(alone.rounds) < S
  text = str(jax.make_jaxpr(split, axis_env=[("steps", 4)])(X_T))
  assert "f32[2,3,4]" in text


def test_one_trace_across_values():
  @jax.jit
  @chex.assert_max_traces(n=1)
  def run(key, ts, tolerance, eta):
    return parallel.sample_parallel(
      key, DENOISE, SCHEDULE, X_T, ts, solver=ddim_jax.ddim(eta), tolerance=tolerance
    )

  loose = run(KEYS, TS, 0.1, 0.0)
  tight = run(KEYS, TS, 1e-4, 0.0)
  assert loose.rounds < tight.rounds
  ts = timesteps.trailing(1000, S)
  other = run(KEYS, ts, 1e-4, 1.0)
  np.testing.assert_allclose(other.x_0, sequential(ddim_jax.ddim(1.0), ts=ts), atol=2e-3)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"window": 0}, r"window must be in \[1, 40\], got 0"),
    ({"window": 41}, r"window must be in \[1, 40\], got 41"),
    ({"solver": bijective.bijective()}, "must not remember"),
    ({"ts": TS[None]}, "vector"),
  ],
)
def test_refuses(change, message):
  arguments = {"ts": TS} | change
  with pytest.raises(ValueError, match=message):
    parallel.sample_parallel(KEY, DENOISE, SCHEDULE, X_T, **arguments)


def test_refuses_a_window_that_devices_cannot_share():
  run = lambda x: parallel.sample_parallel(KEY, DENOISE, SCHEDULE, x, TS, window=6, axis_name="steps")
  with pytest.raises(ValueError, match="multiple of the 4 devices, got 6"):
    jax.make_jaxpr(run, axis_env=[("steps", 4)])(X_T)
