"""Values that are not traced are checked at once, and named."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ddim_jax
from ddim_jax import timesteps

LINEAR, JSD = ddim_jax.linear_schedule(100), ddim_jax.jsd_schedule(100)
X = jnp.ones((2, 3))
DENOISE = ddim_jax.as_denoiser(lambda x, t: x, LINEAR)
KEY = jax.random.key(0)


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda: ddim_jax.ddim(2.0), r"eta must be in \[0, 1\], got 2\.0"),
    (lambda: ddim_jax.ddim(jnp.asarray(-0.1)), r"eta must be in \[0, 1\]"),
    (lambda: ddim_jax.ddim(np.nan), "eta must be .*nan"),
    (lambda: ddim_jax.ddim_step(LINEAR, DENOISE(X, 5), 5, 4, eta=1.1), "eta must"),
    (lambda: ddim_jax.dpm_solver_pp(2, eta=-1), "eta must"),
    (lambda: ddim_jax.dpm_solver_pp_singlestep(2, eta=3), "eta must"),
    (lambda: ddim_jax.ancestral(ddim_jax.ddim(), 1.5), "eta must"),
    (lambda: ddim_jax.ancestral(ddim_jax.lms()).init(X), "solver must not remember"),
    (lambda: ddim_jax.heun(churn=-0.1), "churn must"),
    (lambda: ddim_jax.lms(5), "order must be an integer from 1 to 4, got 5"),
    (lambda: ddim_jax.dpm_solver_pp_singlestep(0), "order must be an integer from 1 to 3, got 0"),
    (lambda: ddim_jax.clip_x0(DENOISE, LINEAR, 1, -1), "low must be at most high, got 1 and -1"),
    (lambda: ddim_jax.dynamic_threshold(DENOISE, LINEAR, 1.5), r"quantile must be in \[0, 1\], got 1\.5"),
    (
      lambda: ddim_jax.dynamic_threshold(DENOISE, LINEAR, 0.9, 0.5),
      r"maximum must be in .1, inf., got 0\.5",
    ),
    (
      lambda: ddim_jax.sample(KEY, DENOISE, LINEAR, X, timesteps.uniform(1000, 10)),
      r"ts must be in \[0, 100\]",
    ),
    (lambda: ddim_jax.sample_parallel(KEY, DENOISE, LINEAR, X, np.array([101, 0])), "ts must be in"),
    (
      lambda: ddim_jax.invert(DENOISE, LINEAR, X, np.array([5, 7, 0])),
      "ts must decrease .* got .5, 7, 0",
    ),
    (lambda: ddim_jax.invert(DENOISE, LINEAR, X, np.array([7, 7])), "ts must decrease"),
    (lambda: ddim_jax.invert(DENOISE, LINEAR, X, np.array([7, 0]), refine=-1), "refine must"),
    (lambda: ddim_jax.invert(DENOISE, LINEAR, X, np.array([7, 0]), damping=2.0), "damping must"),
    (lambda: ddim_jax.as_denoiser(lambda x, t: x, JSD), "nothing is left of the data at level 100"),
  ],
)
def test_refuses(make, message):
  with pytest.raises(ValueError, match=message):
    make()


def test_what_is_traced_or_well_defined_passes():
  @jax.jit
  def run(schedule, eta):
    denoise = ddim_jax.as_denoiser(lambda x, t: x, schedule)
    return ddim_jax.sample(KEY, denoise, schedule, X, np.array([7, 0]), solver=ddim_jax.ddim(eta))[0]

  run(JSD, 0.5)
  for parameterisation in (ddim_jax.V, ddim_jax.X0, ddim_jax.EDM, ddim_jax.FLOW):
    ddim_jax.as_denoiser(lambda x, t: x, JSD, parameterisation)
  padded, _ = timesteps.pad(timesteps.uniform(100, 3), 6)
  ddim_jax.invert(DENOISE, LINEAR, X, timesteps.uniform(100, 3))
  ddim_jax.schedules.check_decreasing(padded, 100)


@pytest.mark.parametrize("spacing", [timesteps.log_snr, timesteps.karras])
@pytest.mark.parametrize("T", [1, 2, 1000])
def test_spacing_ignores_the_infinite_end(spacing, T):
  """Without signal at level T, the other levels are spaced as for the schedule that stops before it."""
  schedule = ddim_jax.jsd_schedule(T)
  if T > 2:
    shorter = ddim_jax.schedules.Schedule(schedule.log_snr[:-1])
    for S in (2, 10):
      ts = spacing(schedule, S)
      np.testing.assert_allclose(ts[1:], spacing(shorter, S)[1:], rtol=1e-6)
      assert ts[0] == T
  else:
    np.testing.assert_array_equal(spacing(schedule, T), [2, 1, 0] if T == 2 else [1, 0])


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
