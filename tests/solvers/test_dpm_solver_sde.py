"""DPM-Solver++ (SDE): its order in distribution and along a path, and the noise that it takes."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ddim_jax
from ddim_jax import Prediction, timesteps
from ddim_jax.schedules import coefficients
from ddim_jax.seeds import draw_noise, step_noise
from tests import oracles

ALPHA_BAR = oracles.linear_alpha_bar()
LOG_SNR = np.log(ALPHA_BAR[1:]) - np.log1p(-ALPHA_BAR[1:])
MIXTURE = oracles.Mixture([-1.0, 0.2, 1.1], [0.3, 0.5, 0.2], 0.4)
MEAN, VARIANCE = 0.3, 0.25
SCHEDULE = ddim_jax.linear_schedule()
KEY = jax.random.key(0)


def level(lam):
  """The level of this lambda, half the log-SNR."""
  return np.interp(-2 * np.asarray(lam), -LOG_SNR, np.arange(1, 1001))


def alpha_bar(lam):
  return 1 / (1 + np.exp(-2 * lam))


def of_mixture(x, t, schedule):
  alpha, sigma = coefficients(schedule, t, x)
  x0 = MIXTURE.x0(x, alpha, sigma, jnp)
  return Prediction(x0, (x - alpha * x0) / sigma)


def of_normal(x, t, schedule):
  alpha, sigma = coefficients(schedule, t, x)
  x0 = MEAN + alpha * VARIANCE / (alpha**2 * VARIANCE + sigma**2) * (x - alpha * MEAN)
  return Prediction(x0, (x - alpha * x0) / sigma)


def slope(steps, errors):
  return -np.polyfit(np.log(steps), np.log(errors), 1)[0]


@pytest.mark.slow
@pytest.mark.parametrize(("eta", "together", "order"), [(1.0, True, 2), (0.5, True, 2), (1.0, False, 1)])
def test_the_distribution_has_order_2_by_the_common_noise(eta, together, order):
  """Normal data: a step is affine in the sample and both noises, so that moments are followed exactly."""
  first, last = LOG_SNR[-1] / 2, LOG_SNR[199] / 2
  units = np.eye(4)[:, 1:]  # nothing, the sample, either noise

  def errors(S):
    schedule = ddim_jax.linear_schedule()
    solver = ddim_jax.dpm_solver_pp_sde(eta)
    lam = np.linspace(first, last, S + 1)
    ts = jnp.asarray(level(lam))

    def step(_, levels):
      x, z = jnp.asarray(units[:, :1]), jnp.asarray(units[:, 1:].T[..., None])
      return None, solver.step(lambda x, t: of_normal(x, t, schedule), schedule, (), x, *levels, z)[0][:, 0]

    offset, *rest = np.asarray(jax.lax.scan(step, None, (ts[:-1], ts[1:]))[1]).T
    a, one, two = (each - offset for each in rest)
    if not together:  # the same stages with noises of their own
      share = 1 / (1 + np.exp(-np.diff(lam) / 2))
      two /= np.sqrt(1 - share)
      one -= np.sqrt(share) * two
    bar = alpha_bar(first)
    mean, variance = np.sqrt(bar) * MEAN, bar * VARIANCE + 1 - bar
    for i in range(S):
      mean, variance = a[i] * mean + offset[i], a[i] ** 2 * variance + one[i] ** 2 + two[i] ** 2
    bar = alpha_bar(last)
    return abs(mean - np.sqrt(bar) * MEAN), abs(variance - (bar * VARIANCE + 1 - bar))

  steps = (40, 80, 160)
  with jax.enable_x64(True):
    _, variances = zip(*map(errors, steps), strict=True)
  assert slope(steps, variances) == pytest.approx(order, abs=0.25), variances


def test_one_step_is_right_to_third_order_for_a_network_that_is_not_linear():
  """Mean and second moment of x_s given x_t against the process's own, in closed form for the mixture."""
  x_t, start = 0.4, 0.3
  nodes, weights = np.polynomial.hermite_e.hermegauss(24)
  z = np.stack([pair.ravel() for pair in np.meshgrid(nodes, nodes)])
  weights = np.outer(weights, weights).ravel() / (2 * np.pi)
  bar_t = alpha_bar(start)
  variance = bar_t * MIXTURE.std**2 + 1 - bar_t
  likely = MIXTURE.weights * np.exp(-((x_t - np.sqrt(bar_t) * MIXTURE.means) ** 2) / (2 * variance))
  likely /= likely.sum()
  means = MIXTURE.means + np.sqrt(bar_t) * MIXTURE.std**2 / variance * (x_t - np.sqrt(bar_t) * MIXTURE.means)
  x0 = likely @ means
  spread = likely @ means**2 - x0**2 + MIXTURE.std**2 * (1 - bar_t) / variance
  lengths, errors = np.array([0.2, 0.1, 0.05, 0.025]), []
  with jax.enable_x64(True):
    schedule, solver = ddim_jax.linear_schedule(), ddim_jax.dpm_solver_pp_sde()
    denoise = lambda x, t: of_mixture(x, t, schedule)
    step = jax.jit(lambda x, t, s, z: solver.step(denoise, schedule, (), x, t, s, z)[0])
    for h in lengths:
      levels = level([start, start + h])
      x_s = step(jnp.full((z.shape[1], 1), x_t), *levels, jnp.asarray(z[..., None]))[:, 0]
      bar_s = alpha_bar(start + h)
      mean, noise = oracles.posterior(x0, x_t, bar_t, bar_s)
      per_x0 = oracles.posterior(1.0, 0.0, bar_t, bar_s)[0]
      square = mean**2 + noise + per_x0**2 * spread
      errors.append([abs(weights @ x_s - mean), abs(weights @ x_s**2 - square)])
  for each in np.array(errors).T:
    assert slope(1 / lengths, each) > 2.7, each


@pytest.mark.slow
def test_a_path_has_order_1():
  """Against 512 steps along the same Brownian motion in sigma / alpha, for the mixture."""
  finest, number = 512, 300
  lam = np.linspace(LOG_SNR[-1] / 2, LOG_SNR[199] / 2, 2 * finest + 1)
  ratio = np.exp(-lam)
  rng = np.random.default_rng(0)
  parts = rng.standard_normal((2 * finest, number)) * np.sqrt(-np.diff(ratio))[:, None]
  x_T = rng.standard_normal((number, 1))
  solver = ddim_jax.dpm_solver_pp_sde()

  @functools.partial(jax.jit, static_argnums=0)
  def run(S):
    schedule = ddim_jax.linear_schedule()
    halves = np.arange(0, 2 * finest + 1, finest // S)
    gaps = -np.diff(ratio[halves])
    moved = np.stack([part.sum(axis=0) for part in np.split(parts, 2 * S)]) / np.sqrt(gaps)[:, None]
    noise = jnp.asarray(moved.reshape(S, 2, number, 1))
    ts = jnp.asarray(level(lam[halves[::2]]))
    denoise = lambda x, t: of_mixture(x, t, schedule)

    def step(x, inputs):
      t, s, z = inputs
      return solver.step(denoise, schedule, (), x, t, s, z)[0], None

    return jax.lax.scan(step, jnp.asarray(x_T), (ts[:-1], ts[1:], noise))[0]

  steps = (16, 32, 64)
  with jax.enable_x64(True):
    exact, *ends = (np.asarray(run(S)) for S in (finest, *steps))
  errors = [np.sqrt(np.mean((end - exact) ** 2)) for end in ends]
  assert slope(steps, errors) == pytest.approx(1, abs=0.3), errors


@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_steps_keep_the_marginals(eta):
  """For data at one point, x_s has mean alpha_s x0 and variance sigma_s^2 after any number of steps."""
  ts, x0 = timesteps.uniform(1000, 4), 0.7
  solver = ddim_jax.dpm_solver_pp_sde(eta)
  known = lambda x, t: ddim_jax.denoisers.with_x0(jnp.full_like(x, x0), x, t, SCHEDULE)

  def levels(noise):
    alpha, sigma = coefficients(SCHEDULE, int(ts[0]), noise[:1])
    x, seen = alpha * x0 + sigma * noise[:1], []
    for i, (t, s) in enumerate(itertools.pairwise(ts)):
      x = solver.step(known, SCHEDULE, (), x, int(t), int(s), noise[2 * i + 1 : 2 * i + 3].reshape(2, 1))[0]
      seen.append(x[0])
    return jnp.stack(seen)

  zero = jnp.zeros(9)
  np.testing.assert_allclose(jax.jit(levels)(zero), np.sqrt(ALPHA_BAR[ts[1:]]) * x0, atol=1e-5)
  variance = np.sum(np.square(jax.jit(jax.jacobian(levels))(zero)), axis=1)
  np.testing.assert_allclose(variance, 1 - ALPHA_BAR[ts[1:]], atol=1e-5)


def tanh(x, t):
  alpha, sigma = coefficients(SCHEDULE, t, x)
  x0 = jnp.tanh(2 * x + alpha)
  return Prediction(x0, (x - alpha * x0) / sigma)


def test_without_noise_it_is_2s():
  x_T, ts = jax.random.normal(KEY, (4, 3)), timesteps.karras(SCHEDULE, 7)
  ends = [
    ddim_jax.sample(KEY, tanh, SCHEDULE, x_T, ts, solver=solver)[0]
    for solver in (ddim_jax.dpm_solver_pp_sde(0.0), ddim_jax.dpm_solver_pp_2s())
  ]
  np.testing.assert_allclose(*ends, atol=1e-6)


@pytest.mark.slow
def test_an_image_is_the_same_in_any_batch_and_under_repaint():
  """The first noise of a step is the one that other solvers draw; the second differs from all of those."""
  keys = ddim_jax.image_keys(KEY, np.arange(4))
  x_T = ddim_jax.initial_noise(keys, (4, 3))
  draw = jax.jit(
    lambda keys, x, ts, repaint: ddim_jax.sample(
      keys, tanh, SCHEDULE, x, ts,
      solver=(ddim_jax.repaint if repaint else lambda s: s)(ddim_jax.dpm_solver_pp_sde()),
    )[0], static_argnums=3,
  )  # fmt: skip
  ts = timesteps.uniform(1000, 5)
  whole = draw(keys, x_T, ts, False)
  np.testing.assert_allclose(draw(keys[2:3], x_T[2:3], ts, False), whole[2:3], atol=1e-6)
  np.testing.assert_allclose(draw(keys, x_T, ts, True), whole, atol=1e-6)
  assert np.isfinite(draw(keys, x_T, timesteps.repaint(ts, 1, 2), True)).all()
  first, second = step_noise(keys, 3, 2, (4, 3), jnp.float32)
  np.testing.assert_array_equal(first, draw_noise(keys, 3, (4, 3), jnp.float32))
  others = [np.asarray(draw_noise(keys, i, (4, 3), jnp.float32)) for i in range(7)]
  assert not any(np.isin(np.asarray(second), other).any() for other in others)


@pytest.mark.slow
def test_finite_down_to_level_0_from_levels_without_signal():
  """With derivatives, for few steps; and in half precision."""

  @jax.jit
  def run(schedule, x, ts, count):
    denoise = ddim_jax.as_denoiser(lambda x, t: jnp.tanh(x), schedule, ddim_jax.V)
    solver = ddim_jax.dpm_solver_pp_sde()
    loss = lambda x, schedule: jnp.sum(
      ddim_jax.sample(KEY, denoise, schedule, x, ts, solver=solver, count=count)[0]
    )
    return jax.value_and_grad(loss, argnums=(0, 1))(x, schedule)

  for schedule in (SCHEDULE, ddim_jax.jsd_schedule()):
    for ts in ([1000, 0], [1000, 1, 0], [1000, 999, 998, 0], [3, 2, 1, 0]):
      found = run(schedule, jnp.ones((2, 2)), *timesteps.pad(np.array(ts, np.int32), 4))
      assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found)), ts
  solver, z = ddim_jax.dpm_solver_pp_sde(), jax.random.normal(KEY, (2, 3, 8))
  step = jax.jit(lambda x, z: solver.step(tanh, SCHEDULE, (), x, 700, 600, z)[0])
  half = step(z[0].astype(jnp.bfloat16), z.astype(jnp.bfloat16))
  assert half.dtype == jnp.bfloat16
  np.testing.assert_allclose(half.astype(jnp.float32), step(z[0], z), atol=0.05)


def test_refuses():
  with pytest.raises(ValueError, match=r"eta must be in \[0, 1\], got 1.5"):
    ddim_jax.dpm_solver_pp_sde(1.5)
  with pytest.raises(ValueError, match=r"z must be two draws of noise, of shape \(2, 1, 3\), got \(1, 3\)"):
    ddim_jax.dpm_solver_pp_sde().step(tanh, SCHEDULE, (), jnp.ones((1, 3)), 900, 800, jnp.ones((1, 3)))
  with pytest.raises(ValueError, match="solver must be deterministic, got one that takes 2 draws"):
    ddim_jax.ancestral(ddim_jax.dpm_solver_pp_sde())
