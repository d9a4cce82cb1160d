import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ddim_jax
from ddim_jax import Prediction, timesteps
from tests import oracles

SCHEDULE = ddim_jax.linear_schedule()
ALPHA_BAR = oracles.linear_alpha_bar()
GRIDS = {
  "uniform": timesteps.uniform(1000, 10),
  "quadratic": timesteps.quadratic(1000, 20),
  "leading": timesteps.leading(1000, 7),
  "trailing": timesteps.trailing(1000, 13),
  "linspace": timesteps.linspace(1000, 5),
  "all": timesteps.uniform(1000, 1000)[::37],
}


def step_coefficients(move):
  """Coefficients of x0, eps and z in a step that is linear in them."""
  one, zero = jnp.ones((1, 1)), jnp.zeros((1, 1))
  of = lambda x0, eps, z: float(move(Prediction(x0, eps), z).squeeze())
  return of(one, zero, zero), of(zero, one, zero), of(zero, zero, one)


@pytest.mark.parametrize("eta", [0.0, 0.2, 0.5, 1.0])
@pytest.mark.parametrize("grid", GRIDS)
def test_marginals_are_right_for_every_eta_and_spacing(grid, eta):
  """Given true x0 and eps, x_s has mean alpha_s x0 and variance 1 - alpha_bar_s (lemma 1 of the paper)."""
  for t, s in zip(GRIDS[grid][:-1], GRIDS[grid][1:], strict=True):
    move = lambda p, z, t=t, s=s: ddim_jax.ddim_step(SCHEDULE, p, t, s, eta=eta, z=z)
    x0, eps, z = step_coefficients(move)
    assert x0 == pytest.approx(np.sqrt(ALPHA_BAR[s]), rel=2e-6)
    assert eps**2 + z**2 == pytest.approx(1 - ALPHA_BAR[s], rel=1e-5, abs=1e-12)


def test_the_misprinted_direction_term_fails_the_marginal_test():
  """sqrt(1 - alpha_bar_t - sigma^2) instead of sqrt(1 - alpha_bar_s - sigma^2)."""
  t, s = 501, 401
  for form, right in ((oracles.paper_step, True), (oracles.misprinted_step, False)):
    noisy = np.sqrt(1 - ALPHA_BAR[t])  # x_t of x0 = 0, eps = 1
    eps = form(noisy, 1.0, ALPHA_BAR[t], ALPHA_BAR[s], 0.5, 0.0)
    z = form(0.0, 0.0, ALPHA_BAR[t], ALPHA_BAR[s], 0.5, 1.0)
    excess = (eps**2 + z**2) / (1 - ALPHA_BAR[s]) - 1
    assert (abs(excess) < 1e-12) == right
    if not right:
      assert excess > 0.1


@pytest.mark.parametrize("solver", [ddim_jax.ddim(1.0), ddim_jax.ddpm("small")])
def test_eta_1_is_the_ddpm_posterior(solver):
  key = jax.random.key(0)
  x0, eps, z = jax.random.normal(key, (3, 4, 5))
  exact = lambda x, t: Prediction(x0, eps)
  for t in (2, 3, 10, 250, 999, 1000):
    x_t = ddim_jax.add_noise(SCHEDULE, x0, eps, t)
    x_s, _, _ = solver.step(exact, SCHEDULE, solver.init(x_t), x_t, t, t - 1, z)
    mean, variance = oracles.posterior(x0, x_t, ALPHA_BAR[t], ALPHA_BAR[t - 1])
    np.testing.assert_allclose(x_s, mean + np.sqrt(variance) * z, atol=1e-5)


@pytest.mark.parametrize("grid", GRIDS)
def test_sigma_hat(grid):
  solver, zero = ddim_jax.ddpm("large"), jnp.zeros((1, 1))
  for t, s in zip(GRIDS[grid][:-1], GRIDS[grid][1:], strict=True):
    move = lambda p, z, t=t, s=s: solver.step(lambda x, t: p, SCHEDULE, (), zero, t, s, z)[0]
    large = step_coefficients(move)
    small = step_coefficients(lambda p, z, t=t, s=s: ddim_jax.ddim_step(SCHEDULE, p, t, s, eta=1.0, z=z))
    assert large[:2] == pytest.approx(small[:2], rel=1e-6, abs=1e-9)
    sigma_hat = np.sqrt(1 - ALPHA_BAR[t] / ALPHA_BAR[s]) if s > 0 else 0
    assert large[2] == pytest.approx(sigma_hat, rel=1e-5)


def test_equals_the_papers_equations_on_200_random_cases():
  rng = np.random.default_rng(0)
  factories = {
    ddim_jax.linear_schedule: lambda T: np.linspace(1e-4, 0.02, T),
    ddim_jax.constant_schedule: lambda T: np.full(T, 0.02),
    ddim_jax.quadratic_schedule: lambda T: np.linspace(1e-2, 0.02**0.5, T) ** 2,
    ddim_jax.jsd_schedule: lambda T: 1 / np.linspace(T, 1, T),
  }
  spacings = [timesteps.uniform, timesteps.quadratic, timesteps.leading, timesteps.linspace]
  step = jax.jit(ddim_jax.ddim_step)
  for _ in range(200):
    factory = list(factories)[rng.integers(len(factories))]
    T = int(rng.choice([20, 100, 1000]))
    ts = spacings[rng.integers(len(spacings))](T, int(rng.integers(1, T)))
    i, eta = rng.integers(len(ts) - 1), rng.choice([0.0, rng.uniform(), 1.0])
    t, s = int(ts[i]), int(ts[i + 1])
    alpha_bar = np.concatenate([[1.0], np.cumprod(1 - factories[factory](T))])
    if t == T and factory is ddim_jax.jsd_schedule:
      continue  # no signal left: x0 is not determined by eps there
    x0, eps, z = rng.standard_normal((3, 2, 3)).astype(np.float32)
    x_t = np.sqrt(alpha_bar[t]) * x0 + np.sqrt(1 - alpha_bar[t]) * eps
    expected = oracles.paper_step(x_t, eps, alpha_bar[t], alpha_bar[s], eta, z)
    got = step(factory(T), Prediction(jnp.asarray(x0), jnp.asarray(eps)), t, s, eta=eta, z=jnp.asarray(z))
    np.testing.assert_allclose(got, expected, atol=1e-5)


class Step(chex.TestCase):
  @chex.variants(with_jit=True, without_jit=True, with_pmap=True)
  def test_variants_agree_with_the_oracle(self):
    x0, eps, z = jax.random.normal(jax.random.key(1), (3, 2, 4))
    step = self.variant(lambda p, t, s, eta, z: ddim_jax.ddim_step(SCHEDULE, p, t, s, eta=eta, z=z))
    t, s = jnp.array([900, 20]), jnp.array([850, 0])
    got = np.asarray(step(Prediction(x0, eps), t, s, jnp.array(0.3), z)).reshape(-1, 2, 4)[0]
    for i in range(2):
      bars = ALPHA_BAR[int(t[i])], ALPHA_BAR[int(s[i])]
      x_t = np.sqrt(bars[0]) * x0[i] + np.sqrt(1 - bars[0]) * eps[i]
      np.testing.assert_allclose(got[i], oracles.paper_step(x_t, eps[i], *bars, 0.3, z[i]), atol=1e-5)


def test_finite_at_every_pair_of_levels_up_and_down():
  schedule = ddim_jax.jsd_schedule(8)
  prediction = Prediction(jnp.ones((1, 2)), -jnp.ones((1, 2)))
  for solver in (ddim_jax.ddim(0.0), ddim_jax.ddim(1.0), ddim_jax.ddpm("large")):
    for t in range(9):
      for s in range(9):
        x_s, _, _ = solver.step(lambda x, t: prediction, schedule, (), prediction.x0, t, s, jnp.ones((1, 2)))
        chex.assert_tree_all_finite(x_s)


def test_s_equal_to_t_stays():
  x0, eps, z = jax.random.normal(jax.random.key(2), (3, 2, 4))
  for eta in (0.0, 1.0):
    stayed = ddim_jax.ddim_step(SCHEDULE, Prediction(x0, eps), 300, 300, eta=eta, z=z)
    np.testing.assert_allclose(stayed, ddim_jax.add_noise(SCHEDULE, x0, eps, 300), atol=1e-6)


def test_derivatives_are_finite_at_every_level_for_eta_and_schedule():
  prediction, z = Prediction(jnp.ones((1, 2)), -jnp.ones((1, 2))), jnp.ones((1, 2))

  @jax.jit
  @jax.grad
  def gradient(inputs, t, s):
    schedule, eta = inputs
    return jnp.sum(ddim_jax.ddim_step(schedule, prediction, t, s, eta=eta, z=z))

  for factory in (ddim_jax.linear_schedule, ddim_jax.jsd_schedule):
    for t in range(7):
      for s in range(7):
        for eta in (0.0, 0.5, 1.0):
          chex.assert_tree_all_finite(gradient((factory(6), eta), t, s))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_samples_get_their_noise_at_every_level(dtype):
  zero = jnp.zeros((1, 1), dtype)
  for t in (2, 300, 700, 900, 1000):
    fresh = ddim_jax.ddim_step(SCHEDULE, Prediction(zero, zero), t, t - 1, eta=1.0, z=zero + 1)
    assert fresh.dtype == dtype
    _, variance = oracles.posterior(0, 0, ALPHA_BAR[t], ALPHA_BAR[t - 1])
    assert float(fresh.squeeze()) == pytest.approx(np.sqrt(variance), rel=0.01)


def test_refuses():
  with pytest.raises(ValueError, match="differ in shape"):
    ddim_jax.ddim_step(SCHEDULE, Prediction(jnp.ones((1, 2)), jnp.ones((2, 2))), 5, 4)
  with pytest.raises(ValueError, match=r'"small" or "large", got \'medium\''):
    ddim_jax.ddpm("medium")
