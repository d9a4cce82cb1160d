import chex
import jax
import numpy as np
import pytest

import ddim_jax
from ddim_jax.schedules import coefficients

KEYS = jax.random.split(jax.random.key(0), 2)
X0, EPS = (jax.random.normal(key, (3, 4, 4, 1)) for key in KEYS)
ALL = [ddim_jax.EPS, ddim_jax.X0, ddim_jax.V, ddim_jax.EDM, ddim_jax.edm(1.5), ddim_jax.FLOW]


@pytest.mark.parametrize("parameterisation", ALL)
@pytest.mark.parametrize("t", [1, 10, 500, 900])
def test_decode_inverts_target(parameterisation, t):
  schedule = ddim_jax.linear_schedule()
  alpha, sigma = coefficients(schedule, t, X0)
  x_t = ddim_jax.add_noise(schedule, X0, EPS, t)
  prediction = parameterisation.decode(parameterisation.target(X0, EPS, alpha, sigma), x_t, alpha, sigma)
  np.testing.assert_allclose(prediction.x0, X0, atol=2e-5 / float(alpha.squeeze()))
  np.testing.assert_allclose(prediction.eps, EPS, atol=2e-6 / float(sigma.squeeze()))


@pytest.mark.parametrize("parameterisation", ALL)
@pytest.mark.parametrize("factory", [ddim_jax.linear_schedule, ddim_jax.jsd_schedule])
def test_decode_is_finite_and_consistent_at_every_level(parameterisation, factory):
  schedule = factory(20)
  for t in range(21):
    alpha, sigma = coefficients(schedule, t, X0)
    x0, eps = parameterisation.decode(EPS, X0, alpha, sigma)
    chex.assert_tree_all_finite((x0, eps))
    if 0 < t < 20:
      np.testing.assert_allclose(alpha * x0 + sigma * eps, X0, atol=1e-5)


def test_v_is_the_velocity_of_the_rotation():
  """v = d x / d angle where alpha = cos(angle), sigma = sin(angle), by finite differences in float64."""
  angle, step = 0.7, 1e-6
  x = lambda a: np.cos(a) * np.asarray(X0, np.float64) + np.sin(a) * np.asarray(EPS, np.float64)
  velocity = (x(angle + step) - x(angle - step)) / (2 * step)
  np.testing.assert_allclose(ddim_jax.V.target(X0, EPS, np.cos(angle), np.sin(angle)), velocity, atol=1e-5)


def test_edm_of_unit_variance_is_minus_v():
  alpha, sigma = np.cos(0.7), np.sin(0.7)
  output = ddim_jax.edm(1.0).target(X0, EPS, alpha, sigma)
  np.testing.assert_allclose(output, -ddim_jax.V.target(X0, EPS, alpha, sigma), atol=1e-6)
