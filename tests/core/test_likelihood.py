import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import ddim_jax
from ddim_jax import likelihood, timesteps
from tests import oracles

SCHEDULE = ddim_jax.linear_schedule()
ALPHA_BAR = oracles.linear_alpha_bar()
KEY = jax.random.key(0)
MEAN, STD = 0.1, 0.2
COVARIANCE = np.array([[0.09, 0.05, 0.0], [0.05, 0.06, -0.02], [0.0, -0.02, 0.04]], np.float32)


def correlated(x, t):
  """The exact E[x0 | x_t] of normal data with a full covariance: its divergence is no mere diagonal."""
  alpha_bar = SCHEDULE.alpha_bar[t].astype(x.dtype)
  noise = (1 - alpha_bar) * jnp.eye(3, dtype=x.dtype)
  gain = COVARIANCE @ jnp.linalg.inv(alpha_bar * COVARIANCE + noise)
  return MEAN + jnp.sqrt(alpha_bar) * (x - jnp.sqrt(alpha_bar) * MEAN) @ gain


def independent(x, t):
  return oracles.gaussian_x0(x, SCHEDULE.alpha_bar[t].astype(x.dtype), MEAN, STD**2)


DENOISE = ddim_jax.as_denoiser(correlated, SCHEDULE, ddim_jax.X0)
DATA = np.random.default_rng(0).multivariate_normal(np.full(3, MEAN), COVARIANCE, 8).astype(np.float32)
EXACT = stats.multivariate_normal(np.full(3, MEAN), COVARIANCE).logpdf(DATA)


def density(x0, S, key=KEY, divergence=likelihood.exact_divergence):
  run = jax.jit(
    lambda key, x: likelihood.ode_log_density(key, DENOISE, SCHEDULE, x, ts, divergence=divergence)
  )
  ts = timesteps.trailing(1000, S)
  return np.asarray(run(key, x0)[0])


@pytest.mark.slow
def test_the_odes_density_is_the_gaussians_and_of_second_order():
  np.testing.assert_allclose(density(DATA, 1000), EXACT, atol=2e-3)
  errors = [np.abs(density(DATA, S) - EXACT).max() for S in (50, 100)]
  assert errors[0] / errors[1] > 2**1.75


def test_hutchinson_has_the_exact_divergence_as_its_mean():
  matrix = jax.random.normal(KEY, (6, 6))
  f, x = lambda x: jnp.sin(x) @ matrix, jax.random.normal(KEY, (5, 6))
  value, exact = likelihood.exact_divergence(f, x, KEY)
  by_hand = np.cos(x) @ np.diag(np.asarray(matrix))
  np.testing.assert_array_equal(value, f(x))
  np.testing.assert_allclose(exact, by_hand, rtol=1e-5, atol=1e-5)
  estimate = likelihood.hutchinson(4000)(f, x, KEY)[1]
  off_diagonal = np.cos(x)[:, :, None] * np.asarray(matrix)[None] * (1 - np.eye(6))[None]
  deviation = np.sqrt(((off_diagonal + off_diagonal.transpose(0, 2, 1)) ** 2).sum(axis=(1, 2)) / 2 / 4000)
  assert np.all(np.abs(estimate - by_hand) < 4 * deviation)
  assert np.abs(estimate - by_hand).max() > 0


@pytest.mark.slow
def test_hutchinson_in_the_ode():
  """Unbiased by image: the mean over many keys is the exact answer of the same steps."""
  tiled, keys = np.repeat(DATA[:2], 400, axis=0), jax.random.split(KEY, 800)
  estimates = density(tiled, 50, keys, likelihood.hutchinson(2)).reshape(2, 400)
  assert np.all(estimates.std(axis=1) > 0)
  error = np.abs(estimates.mean(axis=1) - density(DATA[:2], 50))
  assert np.all(error < 4 * estimates.std(axis=1) / 20)


@pytest.mark.slow
def test_vmap_jit_and_keys_per_image_agree():
  ts, keys = timesteps.trailing(1000, 10), ddim_jax.image_keys(KEY, jnp.arange(8))

  @chex.assert_max_traces(n=1)
  def both(keys, x, ts):
    log_p, _ = likelihood.ode_log_density(keys, DENOISE, SCHEDULE, x, ts, divergence=likelihood.hutchinson())
    return log_p, likelihood.variational_bound(keys, DENOISE, SCHEDULE, x, ts, share=0.5).total

  run = jax.jit(both)
  whole = run(keys, DATA, ts)
  run(keys, 2 * DATA, timesteps.uniform(1000, 10))
  parts = jax.jit(jax.vmap(both.__wrapped__))(keys.reshape(4, 2), DATA.reshape(4, 2, 3), jnp.tile(ts, (4, 1)))
  chex.assert_trees_all_close(whole, jax.tree.map(jnp.ravel, parts), rtol=1e-4, atol=1e-3)


def test_discretised_gaussian_equals_scipy_in_float64():
  x = np.linspace(-1, 1, 256)
  for mean, std in ((0.0, 0.3), (0.9, 0.05), (-1.0, 0.02)):
    edges = np.concatenate([[-np.inf], (x[1:] + x[:-1]) / 2, [np.inf]])
    normal = stats.norm(mean, std)
    left = normal.cdf(edges[1:]) - normal.cdf(edges[:-1])
    right = normal.sf(edges[:-1]) - normal.sf(edges[1:])
    expected = np.where(x < mean, left, right)
    ours = likelihood.discretised_gaussian(jnp.asarray(x, jnp.float32), mean, std)
    seen = expected > 1e-30
    np.testing.assert_allclose(np.asarray(ours)[seen], np.log(expected[seen]), rtol=1e-3, atol=1e-3)
    assert float(jnp.exp(ours).sum()) == pytest.approx(1, abs=1e-4)
    assert np.all(np.isfinite(ours))


def test_terms_of_the_bound_are_the_closed_form_divergences():
  """Every term in float64 from means and variances, as in the paper, with the same noise."""
  ts, x0 = timesteps.explicit(1000, [1000, 600, 200, 40, 3]), np.clip(DATA, -1, 1)
  denoise = ddim_jax.as_denoiser(independent, SCHEDULE, ddim_jax.X0)
  run = lambda key, share: likelihood.variational_bound(key, denoise, SCHEDULE, x0, ts, share=share)
  many = jax.jit(jax.vmap(run, in_axes=(0, None)))
  for share in (0.0, 0.3, 1.0):
    bound = many(jax.random.split(KEY, 2000), share)
    chex.assert_shape(bound.levels, (2000, 4, 8))
    a, v, clean = np.sqrt(ALPHA_BAR[1000]), 1 - ALPHA_BAR[1000], x0.astype(np.float64)
    expected = 0.5 * (v + a**2 * clean**2 - 1 - np.log(v)).sum(axis=1)
    np.testing.assert_allclose(bound.prior[0], expected, rtol=1e-3, atol=1e-8)

    # The network is affine, so the mean over noise of the squared error is closed form.
    for i, (t, s) in enumerate(((1000, 600), (600, 200), (200, 40), (40, 3))):
      _, posterior = oracles.posterior(0.0, 0.0, ALPHA_BAR[t], ALPHA_BAR[s])
      beta = 1 - ALPHA_BAR[t] / ALPHA_BAR[s]
      variance = np.exp(share * np.log(beta) + (1 - share) * np.log(posterior))
      a, v = np.sqrt(ALPHA_BAR[t]), 1 - ALPHA_BAR[t]
      gain = a * STD**2 / (a**2 * STD**2 + v)
      error = ((1 - gain * a) * (MEAN - clean)) ** 2 + gain**2 * v
      coefficient = oracles.posterior(1.0, 0.0, ALPHA_BAR[t], ALPHA_BAR[s])[0]
      kl = np.log(variance / posterior) + posterior / variance - 1 + coefficient**2 * error / variance
      expected, found = kl.sum(axis=1) / 2, np.asarray(bound.levels[:, i])
      noise = found.std(axis=0) / np.sqrt(2000)
      assert np.all(np.abs(found.mean(axis=0) - expected) < 5 * noise + 1e-4 * expected)


@pytest.mark.slow
def test_the_bound_meets_the_entropy_of_gaussian_data():
  """Variance beta is right for steps that are short against the data's spread: hardly anything is lost."""
  x0 = MEAN + STD * jax.random.normal(KEY, (3000, 16))
  denoise = ddim_jax.as_denoiser(independent, SCHEDULE, ddim_jax.X0)
  ts = timesteps.uniform(1000, 1000)
  run = jax.jit(lambda x: likelihood.variational_bound(KEY, denoise, SCHEDULE, x, ts, share=1.0).total)
  bits = float(jnp.mean(likelihood.bits_per_dimension(run(x0), x0.shape)))
  exact = -stats.norm(MEAN, STD).logpdf(x0).mean() / np.log(2) - np.log2(likelihood.BIN)
  assert bits == pytest.approx(exact, abs=0.025)  # five deviations of the mean over the noise


def test_bits_and_dequantisation():
  assert float(likelihood.bits_per_dimension(jnp.array(8 * 12 * np.log(2)), (1, 3, 4))) == pytest.approx(8)
  uniform = likelihood.bits_per_dimension(jnp.array(5 * np.log(2.0)), (1, 5), likelihood.BIN)
  assert float(uniform) == pytest.approx(np.log2(255))  # density 1/2 on [-1, 1]
  x = likelihood.dequantise(KEY, jnp.zeros((1000, 4)))
  assert np.abs(x).max() <= likelihood.BIN / 2
  assert np.std(x) == pytest.approx(likelihood.BIN / np.sqrt(12), rel=0.05)


def test_refusals():
  with pytest.raises(ValueError, match="probes must be at least 1, got 0"):
    likelihood.hutchinson(0)
  with pytest.raises(ValueError, match="one per image"):
    likelihood.ode_log_density(jax.random.split(KEY, 3), DENOISE, SCHEDULE, DATA, timesteps.uniform(1000, 2))
