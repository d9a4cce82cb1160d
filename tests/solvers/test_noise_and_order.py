"""Limits of the order, ancestral versions, and the amount of noise in SA-Solver."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ddim_jax
from ddim_jax import timesteps

LINEAR = ddim_jax.linear_schedule(100)
X = jnp.ones((2, 3))
DENOISE = ddim_jax.as_denoiser(lambda x, t: x, LINEAR)
KEY = jax.random.key(0)


@pytest.mark.slow
def test_lower_order_final_counts_the_steps_that_are_left():
  ts = timesteps.uniform(100, 5)
  for levels in (ts, timesteps.pad(ts, 9)[0], jnp.asarray(ts, jnp.float32)):
    limit = ddim_jax.lower_order_final(levels)
    assert [int(limit(t, s)) for t, s in itertools.pairwise(ts)] == [5, 4, 3, 2, 1]
  run = lambda solver, ts: ddim_jax.sample(KEY, DENOISE, LINEAR, X, ts, solver=solver)[0]
  short = np.array([90, 20, 1])
  for make in (ddim_jax.dpm_solver_pp, ddim_jax.deis, ddim_jax.unipc):
    limited = run(make(2, limit=ddim_jax.lower_order_final(short)), short)
    assert np.abs(limited - run(make(2), short)).max() > 1e-3
  two = [ddim_jax.dpm_solver_pp(3, limit=lambda t, s: 2), ddim_jax.dpm_solver_pp(2)]
  np.testing.assert_allclose(*[run(solver, ts) for solver in two], rtol=1e-5)


@pytest.mark.slow
def test_ancestral_steps_keep_the_marginals():
  """For data at one point, x_s has the process's mean and variance; with DDIM it is DDIM with eta."""
  x0, t, s = 0.7, 80, 30
  known = lambda x, t: ddim_jax.denoisers.with_x0(jnp.full_like(x, x0), x, t, LINEAR)
  alpha, sigma = np.asarray(LINEAR.alpha), np.asarray(LINEAR.sigma)
  for eta in (0.0, 0.4, 1.0):
    solver = ddim_jax.ancestral(ddim_jax.dpm_solver_2(), eta)
    move = lambda x, z, solver=solver: solver.step(
      known, LINEAR, (), jnp.full((1, 1), x), t, s, jnp.full((1, 1), z)
    )[0].item()
    middle = move(alpha[t] * x0, 0.0)
    parts = move(alpha[t] * x0 + sigma[t], 0.0) - middle, move(alpha[t] * x0, 1.0) - middle
    assert middle == pytest.approx(alpha[s] * x0, abs=1e-5)
    assert np.hypot(*parts) == pytest.approx(sigma[s], rel=1e-4)
    x, z = jax.random.normal(KEY, (2, 2, 3))
    one, other = ddim_jax.ancestral(ddim_jax.ddim(), eta), ddim_jax.ddim(eta)
    for end in (s, 0):
      got, expected = (each.step(DENOISE, LINEAR, (), x, t, end, z)[0] for each in (one, other))
      np.testing.assert_allclose(got, expected, atol=2e-5)


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0])
def test_sa_solver_keeps_the_marginals_for_any_amount_of_noise(tau):
  """For data at one point, x_s has the process's mean and variance after any number of steps."""
  ts, x0 = np.array([90, 60, 35, 10]), 0.7
  known = lambda x, t: ddim_jax.denoisers.with_x0(jnp.full_like(x, x0), x, t, LINEAR)
  alpha, sigma = (np.asarray(v)[ts] for v in (LINEAR.alpha, LINEAR.sigma))
  solver = ddim_jax.sa_solver(tau)

  def levels(noise):
    x = alpha[0] * x0 + sigma[0] * noise[:1].reshape(1, 1)
    carry, seen = solver.init(x), []
    for i, (t, s) in enumerate(itertools.pairwise(ts)):
      x, carry, _ = solver.step(known, LINEAR, carry, x, int(t), int(s), noise[i + 1].reshape(1, 1))
      seen.append(x[0, 0])
    return jnp.stack(seen)

  derivative = np.asarray(jax.jit(jax.jacobian(levels))(jnp.zeros(4)))
  np.testing.assert_allclose(jax.jit(levels)(jnp.zeros(4)), alpha[1:] * x0, atol=1e-5)
  np.testing.assert_allclose(np.sum(derivative**2, axis=1), sigma[1:] ** 2, rtol=1e-4)
  h = np.diff(np.log(alpha / sigma))[0]
  assert abs(derivative[0, 1]) == pytest.approx(
    sigma[1] * np.sqrt(-np.expm1(-2 * tau**2 * h)), rel=1e-4, abs=1e-6
  )


def test_sa_solver_refuses():
  for tau in (-0.1, 1.5, np.nan):
    with pytest.raises(ValueError, match=r"tau must be in \[0, 1\]"):
      ddim_jax.sa_solver(tau)
