import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ddim_jax
from ddim_jax import inverse_problems, timesteps
from ddim_jax.schedules import coefficients

SCHEDULE = ddim_jax.linear_schedule()
KEY = jax.random.key(0)
X = jax.random.normal(KEY, (2, 4, 4, 3), jnp.float32)
NETWORK = lambda x, t: jnp.tanh(x + jnp.roll(x, 1, axis=1)) * 0.9
DENOISE = ddim_jax.as_denoiser(NETWORK, SCHEDULE)
MASK = np.arange(16).reshape(1, 4, 4, 1) % 3 == 0
OPERATORS = {
  "masked": inverse_problems.masked(MASK),
  "super_resolution": inverse_problems.super_resolution(2),
  "colourisation": inverse_problems.colourisation((0.299, 0.587, 0.114)),
  "both": inverse_problems.compose(inverse_problems.colourisation(), inverse_problems.super_resolution(2)),
  "hidden": inverse_problems.compose(
    inverse_problems.masked(np.array([[True, False], [True, True]])[None, :, :, None]),
    inverse_problems.super_resolution(2),
  ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OPERATORS)
def test_pseudo_inverses_are_moore_and_penroses(name):
  operator = OPERATORS[name]
  y = operator.apply(X[:1])
  forward = np.asarray(jax.jacobian(lambda x: operator.apply(x.reshape(1, 4, 4, 3)).ravel())(X[0].ravel()))
  back = np.asarray(jax.jacobian(lambda v: operator.pseudo_inverse(v.reshape(y.shape)).ravel())(y.ravel()))
  np.testing.assert_allclose(back, np.linalg.pinv(forward), atol=1e-6)


SOLVERS = [ddim_jax.ddim(), ddim_jax.ddim(1.0), ddim_jax.ddpm("large"), ddim_jax.ddim(0.5), ddim_jax.ddim()]


@pytest.mark.parametrize(("name", "solver"), list(zip(OPERATORS, SOLVERS, strict=True)))
def test_samples_fit_the_measurement(name, solver):
  y = OPERATORS[name].apply(jnp.clip(X, -1, 1))
  denoise = inverse_problems.constrain(ddim_jax.clip_x0(DENOISE, SCHEDULE), y, OPERATORS[name], SCHEDULE)
  x_T, ts = ddim_jax.initial_noise(KEY, X.shape), timesteps.uniform(1000, 4)
  x_0 = ddim_jax.sample(KEY, denoise, SCHEDULE, x_T, ts, solver=solver)[0]
  np.testing.assert_allclose(OPERATORS[name].apply(x_0), y, atol=2e-6)


def test_inpaint_keeps_what_is_known_and_is_constrain_by_the_mask():
  x_T, ts = ddim_jax.initial_noise(KEY, X.shape), timesteps.uniform(1000, 4)
  known = jnp.where(MASK, X, jnp.nan)  # what is not known is not looked at
  run = lambda denoise: ddim_jax.sample(KEY, denoise, SCHEDULE, x_T, ts, solver=ddim_jax.ddim(0.5))[0]
  x_0 = run(ddim_jax.inpaint(DENOISE, MASK, known, SCHEDULE))
  np.testing.assert_allclose(x_0, jnp.where(MASK, X, x_0), atol=1e-6)
  operator = OPERATORS["masked"]
  other = run(ddim_jax.constrain(DENOISE, operator.apply(X), operator, SCHEDULE))
  np.testing.assert_allclose(x_0, other, atol=1e-5)


@pytest.mark.parametrize("t", [1, 999])
def test_every_combinator_composes_with_every_other(t):
  """Pairs stay consistent, whatever is wrapped in whatever."""
  grey = OPERATORS["colourisation"]
  wraps = [
    lambda d: ddim_jax.clip_x0(d, SCHEDULE),
    lambda d: ddim_jax.dynamic_threshold(d, SCHEDULE),
    lambda d: ddim_jax.guide(d, DENOISE, SCHEDULE, 2.0, rescale=0.5),
    lambda d: ddim_jax.classifier_guide(d, lambda x, t: jnp.sum(x**2, axis=(1, 2, 3)), SCHEDULE, 0.1),
    lambda d: ddim_jax.inpaint(d, MASK, X, SCHEDULE),
    lambda d: ddim_jax.constrain(d, grey.apply(X), grey, SCHEDULE),
  ]
  alpha, sigma = coefficients(SCHEDULE, t, X)
  for inner, outer in itertools.product(wraps, wraps):
    x0, eps = outer(inner(DENOISE))(X, t)
    np.testing.assert_allclose(alpha * x0 + sigma * eps, X, rtol=1e-3, atol=1e-3)


# Two pixels of unit variance and correlation RHO; the first is known. Everything is closed form.
RHO, FIRST = 0.9, 1.5
COVARIANCE = np.array([[1, RHO], [RHO, 1]], np.float32)


def correlated(x, t):
  """The exact denoiser of the two pixels."""
  alpha_bar = SCHEDULE.alpha_bar[t]
  return jnp.sqrt(1 - alpha_bar) * x @ jnp.linalg.inv(alpha_bar * COVARIANCE + (1 - alpha_bar) * jnp.eye(2))


def second_pixel(ts, solver):
  plain = ddim_jax.as_denoiser(correlated, SCHEDULE)
  denoise = ddim_jax.inpaint(plain, np.array([[True, False]]), jnp.array([[FIRST, 0.0]]), SCHEDULE)
  x_T = ddim_jax.initial_noise(KEY, (20_000, 2))
  run = jax.jit(lambda key, x: ddim_jax.sample(key, denoise, SCHEDULE, x, ts, solver=solver)[0])
  x_0 = run(jax.random.key(1), x_T)
  np.testing.assert_allclose(x_0[:, 0], FIRST, atol=1e-5)
  return np.mean(x_0[:, 1]), np.var(x_0[:, 1])


@pytest.mark.slow
def test_resampling_comes_close_to_the_exact_posterior():
  """N(rho x1, 1 - rho^2); without resampling, what is drawn does not fit what is known.

  What is left of the error in the variance is the ancestral solver's own with 100 steps.
  """
  ts, solver = timesteps.uniform(1000, 100), ddim_jax.ddim(1.0)
  mean, variance = RHO * FIRST, 1 - RHO**2
  plain = second_pixel(ts, solver)
  again = second_pixel(timesteps.repaint(ts, 5, 8), inverse_problems.repaint(solver))
  assert abs(plain[0] - mean) > 0.3
  assert plain[1] > 1.5 * variance
  assert again[0] == pytest.approx(mean, abs=0.06)
  assert again[1] == pytest.approx(variance, rel=0.2)


def test_repaint_goes_down_as_its_solver_and_up_as_the_forward_process():
  solver, x, z = ddim_jax.ddim(0.5), X, jax.random.normal(jax.random.key(1), X.shape, jnp.float32)
  both = inverse_problems.repaint(solver)
  down, _, prediction = solver.step(DENOISE, SCHEDULE, (), x, 500, 300, z)
  x_s, carry, seen = both.step(DENOISE, SCHEDULE, both.init(x), x, 500, 300, z)
  chex.assert_trees_all_close((x_s, seen), (down, prediction), rtol=1e-5, atol=1e-6)
  x_s, _, kept = both.step(DENOISE, SCHEDULE, carry, x, 300, 500, z)
  ratio = float(SCHEDULE.alpha_bar[500] / SCHEDULE.alpha_bar[300])
  np.testing.assert_allclose(x_s, ratio**0.5 * x + (1 - ratio) ** 0.5 * z, rtol=1e-4, atol=1e-5)
  chex.assert_trees_all_equal(kept, seen)


def test_steps_up_ask_no_network():
  asked = []

  def denoise(x, t):
    jax.debug.callback(lambda t: asked.append(int(t)), t)
    return DENOISE(x, t)

  ts = timesteps.repaint(timesteps.uniform(1000, 4), 2, 3)
  x_0 = ddim_jax.sample(KEY, denoise, SCHEDULE, X, ts, solver=inverse_problems.repaint())[0]
  jax.block_until_ready(x_0)
  jax.effects_barrier()
  assert sorted(asked, reverse=True) == [751, 501, 501, 501, 251, 251, 251, 1]


def test_one_trace_across_measurements_and_masks():
  @jax.jit
  @chex.assert_max_traces(n=1)
  def run(mask, known, y):
    painted = ddim_jax.inpaint(DENOISE, mask, known, SCHEDULE)
    grey = OPERATORS["colourisation"]
    return ddim_jax.constrain(painted, y, grey, SCHEDULE)(X, 400).x0

  y = jnp.zeros((2, 4, 4, 1))
  assert not np.allclose(run(MASK, X, y), run(~MASK, 2 * X, y + 1))


def test_refusals():
  with pytest.raises(ValueError, match="mask must be bool, got float"):
    ddim_jax.inpaint(DENOISE, jnp.ones((4, 4, 1)), X, SCHEDULE)(X, 5)
  with pytest.raises(ValueError, match=r"known must broadcast to the samples, .*got \(3, 4, 4, 3\)"):
    ddim_jax.inpaint(DENOISE, MASK, jnp.ones((3, 4, 4, 3)), SCHEDULE)(X, 5)
  with pytest.raises(ValueError, match=r"measurement must be \(2, 2, 2, 3\).*got \(2, 4, 4, 3\)"):
    ddim_jax.constrain(DENOISE, X, OPERATORS["super_resolution"], SCHEDULE)(X, 5)
  with pytest.raises(ValueError, match="H and W multiples"):
    inverse_problems.super_resolution(3).apply(X)
  with pytest.raises(ValueError, match="factor must be at least 1, got 0"):
    inverse_problems.super_resolution(0)
  with pytest.raises(ValueError, match="weights must be finite and not all 0"):
    inverse_problems.colourisation((0.0,))
  with pytest.raises(ValueError, match="2 weights"):
    inverse_problems.colourisation((1.0, 1.0)).apply(X)
