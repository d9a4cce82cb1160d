import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ddim_jax
from ddim_jax.schedules import coefficients
from tests import oracles

SCHEDULE = ddim_jax.linear_schedule()
X = 3 * jax.random.normal(jax.random.key(0), (4, 5, 5, 2))
A = ddim_jax.as_denoiser(lambda x, t: 0.3 * x + 0.1, SCHEDULE)
B = ddim_jax.as_denoiser(lambda x, t: -0.2 * x, SCHEDULE, ddim_jax.V)


def gaussian(mean, variance):
  """The exact denoiser of normal data."""
  network = lambda x, t: oracles.gaussian_x0(x, SCHEDULE.alpha_bar[t], mean, variance)
  return ddim_jax.as_denoiser(network, SCHEDULE, ddim_jax.X0)


@pytest.mark.parametrize("parameterisation", [ddim_jax.EPS, ddim_jax.V, ddim_jax.X0])
@pytest.mark.parametrize("rescale", [0.7, 1.0])
def test_rescale_equals_diffusers(parameterisation, rescale):
  utils, torch = pytest.importorskip("diffusers.guiders.guider_utils"), pytest.importorskip("torch")
  t, (alpha, sigma) = 400, coefficients(SCHEDULE, 400, X)
  output = lambda denoise: torch.from_numpy(np.array(parameterisation.target(*denoise(X, t), alpha, sigma)))
  plain = ddim_jax.guide(A, B, SCHEDULE, 5.0)
  expected = utils.rescale_noise_cfg(output(plain), output(A), rescale)
  rescaled = ddim_jax.guide(A, B, SCHEDULE, 5.0, rescale=rescale, parameterisation=parameterisation)
  np.testing.assert_allclose(output(rescaled), expected, rtol=1e-4, atol=1e-4)
  assert not np.allclose(output(plain), expected, atol=0.1)


def test_rescale_0_changes_no_bit_and_1_may_differ_by_example():
  plain = ddim_jax.guide(A, B, SCHEDULE, 5.0)(X, 400)
  chex.assert_trees_all_equal(ddim_jax.guide(A, B, SCHEDULE, 5.0, rescale=0.0)(X, 400), plain)
  some = ddim_jax.guide(A, B, SCHEDULE, 5.0, rescale=jnp.array([0.0, 1.0, 0.0, 0.0]))(X, 400)
  np.testing.assert_array_equal(some.x0[2], plain.x0[2])
  assert np.abs(some.x0[1] - plain.x0[1]).max() > 0.1


def test_rescale_survives_an_output_of_zero():
  zero = lambda x, t: ddim_jax.Prediction(*(jnp.zeros_like(x),) * 2)
  chex.assert_tree_all_finite(ddim_jax.guide(zero, zero, SCHEDULE, 2.0, rescale=1.0)(X, 400))


@pytest.mark.parametrize("t", [1, 300, 1000])
def test_a_linear_log_probability_shifts_a_gaussian(t):
  """p(x0) exp(b x0) is normal with mean m + v b; the log-probability at a level is closed form too."""
  mean, variance, b = 0.3, 0.25, jnp.array([1.5, -2.0, 0.5])
  prior = gaussian(mean, variance)
  log_probability = lambda x, t: prior(x, t).x0 @ b
  guided = ddim_jax.classifier_guide(prior, log_probability, SCHEDULE)
  x = jax.random.normal(jax.random.key(1), (6, 3))
  exact = gaussian(mean + variance * b[None], variance)(x, t)
  chex.assert_trees_all_close(guided(x, t), exact, rtol=2e-4, atol=2e-4)
  half = ddim_jax.classifier_guide(prior, log_probability, SCHEDULE, 0.5)
  exact = gaussian(mean + variance * b[None] / 2, variance)(x, t)
  chex.assert_trees_all_close(half(x, t), exact, rtol=2e-4, atol=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("t", [1, 300, 1000])
def test_a_classifier_of_a_mixture_leads_to_its_component(t):
  """Given the component, data are normal: p(k | x_t) and both denoisers are closed form."""
  means, weights, std = np.array([-0.8, 0.1, 0.9]), np.array([0.5, 0.2, 0.3]), 0.2
  mixture = oracles.Mixture(means, weights, std)

  def both(x, t):
    return (part[..., 0] for part in coefficients(SCHEDULE, t, x[..., None]))

  network = lambda x, t: mixture.x0(x, *both(x, t), jnp).astype(x.dtype)
  prior = ddim_jax.as_denoiser(network, SCHEDULE, ddim_jax.X0)

  def classifier(x, t):
    alpha, sigma = coefficients(SCHEDULE, t, x)
    variance = (alpha * std) ** 2 + sigma**2
    return jnp.log(jnp.asarray(weights, x.dtype))[None] - (x - alpha * means.astype(x.dtype)[None]) ** 2 / (
      2 * variance
    )

  labels = jnp.array([0, 1, 2, 2, 1, 0])
  x = jax.random.normal(jax.random.key(1), (6, 1))
  guided = ddim_jax.classifier_guide(prior, ddim_jax.class_log_probability(classifier, labels), SCHEDULE)
  exact = gaussian(jnp.asarray(means, x.dtype)[labels][:, None], std**2)(x, t)
  chex.assert_trees_all_close(guided(x, t), exact, rtol=5e-4, atol=5e-4)
  one = ddim_jax.classifier_guide(prior, ddim_jax.class_log_probability(classifier, 2), SCHEDULE)(x, t)
  np.testing.assert_allclose(one.eps[2:4], guided(x, t).eps[2:4], rtol=1e-5)


@pytest.mark.parametrize("make", [ddim_jax.jsd_schedule, ddim_jax.flow_schedule])
def test_noise_alone_says_nothing_of_a_class(make):
  """p(y | x_T) = p(y) there; a classifier that answers all the same must not push x0 to 1e17."""
  schedule = make(20)
  plain = ddim_jax.as_denoiser(lambda x, t: x / 2, schedule, ddim_jax.V)
  guided = ddim_jax.classifier_guide(plain, lambda x, t: x.sum(axis=(1, 2, 3)), schedule)
  chex.assert_trees_all_equal(guided(X, 20), plain(X, 20))
  mixed = jnp.array([20, 19, 20, 1])  # one level for each example
  np.testing.assert_array_equal(guided(X, mixed).x0[::2], plain(X, mixed).x0[::2])
  assert np.abs(guided(X, mixed).x0[1] - plain(X, mixed).x0[1]).min() > 0.01


def test_samples_of_a_guided_gaussian_have_the_shifted_moments():
  mean, variance, b = 0.3, 0.25, 2.0
  prior = gaussian(mean, variance)
  guided = ddim_jax.classifier_guide(prior, lambda x, t: b * prior(x, t).x0[:, 0], SCHEDULE)
  ts, x_T = ddim_jax.timesteps.uniform(1000, 20), jax.random.normal(jax.random.key(2), (20_000, 1))
  x_0 = jax.jit(lambda x: ddim_jax.sample(jax.random.key(0), guided, SCHEDULE, x, ts)[0])(x_T)
  moments = oracles.gaussian_moments(oracles.linear_alpha_bar(), ts, 0.0, mean + variance * b, variance)
  assert np.mean(x_0) == pytest.approx(moments[0], abs=4 * np.sqrt(moments[1] / 20_000))
  assert np.var(x_0) == pytest.approx(moments[1], rel=4 * np.sqrt(2 / 20_000))


def test_weights_by_example_and_one_trace_for_all_values():
  @jax.jit
  @chex.assert_max_traces(n=1)
  def run(weight, rescale, scale):
    guided = ddim_jax.guide(A, B, SCHEDULE, weight, rescale=rescale)
    pushed = ddim_jax.classifier_guide(guided, lambda x, t: x.sum(axis=(1, 2, 3)), SCHEDULE, scale)
    return pushed(X, 500)

  def by_hand(weight, rescale, scale):
    x0, eps = ddim_jax.guide(A, B, SCHEDULE, weight, rescale=rescale)(X, 500)
    alpha, sigma = coefficients(SCHEDULE, 500, X)
    return ddim_jax.Prediction(x0 + sigma**2 / alpha * scale, eps - sigma * scale)

  for weight, rescale, scale in ((1.0, 0.0, 0.0), (3.0, 0.5, 0.2), (2.0, 1.0, -1.0)):
    out = run(jnp.full(4, weight), rescale, jnp.full(4, scale))
    chex.assert_trees_all_close(out, by_hand(weight, rescale, scale), rtol=1e-3, atol=1e-3)


def test_refusals():
  with pytest.raises(ValueError, match=r"one value per example, \[4\], got \(\)"):
    ddim_jax.classifier_guide(A, lambda x, t: x.sum(), SCHEDULE)(X, 5)
  with pytest.raises(ValueError, match=r"a scalar or one per example, got \(3,\)"):
    ddim_jax.guide(A, B, SCHEDULE, jnp.ones(3))(X, 5)
