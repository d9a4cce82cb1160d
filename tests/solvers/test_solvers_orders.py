"""Every solver against the exact solution: its order, its place in the family, its ends."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ddim_jax
from ddim_jax import Prediction, timesteps
from ddim_jax.schedules import coefficients
from ddim_jax.solvers import multistep
from tests import oracles
from tests.helpers import slow_but

KEY = jax.random.key(0)
ALPHA_BAR = oracles.linear_alpha_bar()
MIXTURE = oracles.Mixture([-1.0, 0.2, 1.1], [0.3, 0.5, 0.2], 0.4)
MEAN, VARIANCE = 0.3, 0.25
END = 200  # all the way to level 1, the leading error of some solvers cancels for normal data
POINTS = np.linspace(-2.3, 2.3, 12)[:, None]
SCHEDULE = ddim_jax.linear_schedule()

# name -> (solver, order in 1/S, evaluations for S steps down to level 0)
SOLVERS = {
  "ddim": (ddim_jax.ddim(), 1, lambda S: S),
  "dpm_solver_pp(1)": (ddim_jax.dpm_solver_pp(1), 1, lambda S: S),
  "dpm_solver_pp(2)": (ddim_jax.dpm_solver_pp(2), 2, lambda S: S),
  "dpm_solver_pp(3)": (ddim_jax.dpm_solver_pp(3), 3, lambda S: S),
  "dpm_solver_pp(3), as published": (ddim_jax.dpm_solver_pp(3, curvature=0.5), 2, lambda S: S),
  "dpm_solver_pp_2s": (ddim_jax.dpm_solver_pp_2s(), 2, lambda S: 2 * S - 1),
  "dpm_solver_pp_sde(0)": (ddim_jax.dpm_solver_pp_sde(0.0), 2, lambda S: 2 * S - 1),
  "unipc(1)": (ddim_jax.unipc(1), 1, lambda S: S),
  "unipc(2)": (ddim_jax.unipc(2), 3, lambda S: S),
  "unipc(3)": (ddim_jax.unipc(3), 4, lambda S: S),
  "deis(1)": (ddim_jax.deis(1), 1, lambda S: S),
  "deis(2)": (ddim_jax.deis(2), 2, lambda S: S),
  "deis(3)": (ddim_jax.deis(3), 3, lambda S: S),
  "heun(1)": (ddim_jax.heun(1), 1, lambda S: S),
  "heun(2)": (ddim_jax.heun(2), 2, lambda S: 2 * S - 1),
  "dpm_solver_2": (ddim_jax.dpm_solver_2(), 2, lambda S: 2 * S - 1),
  "dpm_solver_pp_singlestep(1)": (ddim_jax.dpm_solver_pp_singlestep(1), 1, lambda S: S),
  "dpm_solver_pp_singlestep(2)": (ddim_jax.dpm_solver_pp_singlestep(2), 2, lambda S: S),
  "dpm_solver_pp_singlestep(3)": (ddim_jax.dpm_solver_pp_singlestep(3), 2, lambda S: S),
  "dpm_solver_pp(2), exact": (ddim_jax.dpm_solver_pp(2, exact=True), 2, lambda S: S),
  "sa_solver(0)": (ddim_jax.sa_solver(0.0), 2, lambda S: S),
  "lms(1)": (ddim_jax.lms(1), 1, lambda S: S),
  "lms(2)": (ddim_jax.lms(2), 2, lambda S: S),
  "lms(3)": (ddim_jax.lms(3), 3, lambda S: S),
  "lms(4)": (ddim_jax.lms(4), 4, lambda S: S),
  "plms(1)": (ddim_jax.plms(1), 1, lambda S: S),
  "plms(4)": (ddim_jax.plms(4), 2, lambda S: S + 1),
  "pndm": (ddim_jax.pndm(), 2, lambda S: S + 9),
}
FIRST_ORDER = [name for name in SOLVERS if "(1)" in name]
HIGHEST = [
  "dpm_solver_pp(3)",
  "dpm_solver_pp_2s",
  "dpm_solver_pp_sde(0)",
  "unipc(3)",
  "deis(3)",
  "heun(2)",
  "lms(4)",
  "sa_solver(0)",
  "dpm_solver_2",
  "dpm_solver_pp_singlestep(3)",
  "plms(4)",
  "pndm",
]


def exact(x, t, schedule):
  """Mixture data in the first half of the batch, normal data in the second."""
  alpha, sigma = coefficients(schedule, t, x)
  mixture = MIXTURE.x0(x, alpha, sigma, jnp)
  normal = MEAN + alpha * VARIANCE / (alpha**2 * VARIANCE + sigma**2) * (x - alpha * MEAN)
  first = jnp.arange(x.shape[0]).reshape(-1, 1) < len(POINTS)
  x0 = jnp.where(first, mixture, normal)
  return Prediction(x0, (x - alpha * x0) / sigma)


@pytest.fixture(scope="module")
def solution():
  """At level END, from level T: S = 2,000 for the mixture, the closed form for normal data."""
  start, end = (np.log(a / (1 - a)) / 2 for a in ALPHA_BAR[[1000, END]])
  mixture = oracles.probability_flow(MIXTURE.x0, POINTS, start, end, 2_000)
  return mixture, oracles.gaussian_flow(POINTS, ALPHA_BAR[1000], ALPHA_BAR[END], MEAN, VARIANCE)


def evenly(S):
  """S steps, even in log-SNR, from level T to level END."""
  log_snr = np.log(ALPHA_BAR[1:]) - np.log1p(-ALPHA_BAR[1:])
  ts = np.interp(-np.linspace(log_snr[-1], log_snr[END - 1], S + 1), -log_snr, np.arange(1, 1001))
  ts[[0, -1]] = 1000, END
  return ts


@pytest.mark.parametrize("name", [name for name in SOLVERS if name not in FIRST_ORDER])
def test_the_error_falls_with_the_theoretical_order(name, solution):
  solver, order, _ = SOLVERS[name]
  steps = np.array([160, 320, 640]) if order < 4 else np.array([80, 160, 320])
  chex.clear_trace_counter()
  with jax.enable_x64(True):
    schedule = ddim_jax.linear_schedule()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(ts, count):
      denoise = lambda x, t: exact(x, t, schedule)
      x_T = jnp.asarray(np.concatenate([POINTS, POINTS]))
      return ddim_jax.sample(KEY, denoise, schedule, x_T, ts, solver=solver, count=count)[0]

    ends = [run(*timesteps.pad(evenly(S), 640)) for S in steps]
  for half, expected in enumerate(solution):
    errors = [np.sqrt(np.mean((np.split(np.asarray(end), 2)[half] - expected) ** 2)) for end in ends]
    slope = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert slope == pytest.approx(order, abs=0.25), (("mixture", "normal")[half], errors)


def tanh(x, t):
  """Any smooth network, at a real or an integer level."""
  alpha, sigma = coefficients(SCHEDULE, t, x)
  x0 = jnp.tanh(2 * x + alpha)
  return Prediction(x0, (x - alpha * x0) / sigma)


def end(solver, ts, x_T, schedule=SCHEDULE, denoise=tanh):
  return ddim_jax.sample(KEY, denoise, schedule, x_T, ts, solver=solver)[0]


def assert_equal_but_for_rounding(got, expected, steps):
  """One formula in two programs: compilers fuse a product and a sum in one and not in the other, which
  rounds the last bit of a step differently. So: one unit of the largest value for each step.
  """
  unit = np.spacing(np.abs(expected).max())
  np.testing.assert_allclose(got, expected, rtol=0, atol=steps * unit)


@pytest.mark.parametrize("name", FIRST_ORDER)
def test_order_1_is_ddim_exactly(name):
  x_T, ts = jax.random.normal(KEY, (4, 3)), timesteps.karras(SCHEDULE, 7)
  assert_equal_but_for_rounding(end(SOLVERS[name][0], ts, x_T), end(ddim_jax.ddim(), ts, x_T), 7)


def test_order_1_with_eta_is_ddim_with_eta():
  x_T, ts = jax.random.normal(KEY, (4, 3)), timesteps.uniform(1000, 7)
  noisy = end(ddim_jax.dpm_solver_pp(1, eta=0.3), ts, x_T)
  assert_equal_but_for_rounding(noisy, end(ddim_jax.ddim(0.3), ts, x_T), 7)


@pytest.mark.parametrize("name", ["ddim", *HIGHEST])
def test_evaluations(name):
  solver, _, expected = SOLVERS[name]
  asked = []

  def denoise(x, t):
    jax.debug.callback(lambda t: asked.append(float(t)), t)
    return tanh(x, t)

  run = jax.jit(lambda ts: end(solver, ts, jnp.ones((1, 2)), denoise=denoise))
  run(timesteps.uniform(1000, 6)).block_until_ready()
  jax.effects_barrier()
  assert len(asked) == expected(6)
  assert min(asked) >= 1  # no network knows level 0


@pytest.mark.parametrize(
  "name",
  slow_but(
    lambda name: name == "heun(2)",
    [name for name in HIGHEST if name not in ("dpm_solver_pp(3)", "plms(4)")],
  ),
)
def test_finite_with_finite_derivatives_down_to_level_0(name):
  """Few steps, long last steps, schedules without signal at level T, and steps that stay."""
  solver = SOLVERS[name][0]
  grids = [[1000, 0], [1000, 1, 0], [1000, 999, 998, 997, 0], [900, 300, 300, 1, 0], [3, 2, 1, 0]]

  @jax.jit
  def run(schedule, x_T, ts, count):
    denoise = ddim_jax.as_denoiser(lambda x, t: jnp.tanh(x), schedule, ddim_jax.V)
    loss = lambda x, schedule: jnp.sum(
      ddim_jax.sample(KEY, denoise, schedule, x, ts, solver=solver, count=count)[0]
    )
    return jax.value_and_grad(loss, argnums=(0, 1))(x_T, schedule)

  for schedule in (SCHEDULE, ddim_jax.cosine_schedule(), ddim_jax.jsd_schedule()):
    for ts in grids:
      padded = timesteps.pad(np.array(ts, np.int32), 4)
      chex.assert_tree_all_finite(run(schedule, jnp.ones((2, 2)), *padded))


@pytest.mark.parametrize(
  "name", slow_but(lambda name: name in ("dpm_solver_pp(3)", "unipc(3)", "heun(2)"), HIGHEST)
)
def test_a_level_for_every_example_and_vmap(name):
  """One step from levels of their own is that step for each alone."""
  t, s = jnp.array([900, 500, 20]), jnp.array([700, 100, 0])
  x = jax.random.normal(KEY, (3, 2))
  solver = SOLVERS[name][0]
  step = jax.jit(lambda x, t, s: solver.step(tanh, SCHEDULE, solver.init(x), x, t, s, jnp.zeros_like(x))[0])
  alone = jax.vmap(step)(x[:, None], t, s)[:, 0]
  np.testing.assert_allclose(step(x, t, s), alone, atol=1e-6)
  half = step(x.astype(jnp.bfloat16), t, s)
  assert half.dtype == jnp.bfloat16
  np.testing.assert_allclose(half.astype(jnp.float32), alone, rtol=0.05, atol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_stochastic_steps_keep_the_marginals(order, eta):
  """For data at one point, x_s has mean alpha_s x0 and variance sigma_s^2 after any number of steps."""
  ts, x0 = timesteps.uniform(1000, 5), 0.7

  def denoise(x, t):
    alpha, sigma = coefficients(SCHEDULE, t, x)
    return Prediction(jnp.full_like(x, x0), (x - alpha * x0) / sigma)

  def levels(noise):  # the start's and every step's
    solver, carry, x = ddim_jax.dpm_solver_pp(order, eta), None, noise[:1]
    alpha, sigma = coefficients(SCHEDULE, int(ts[0]), x)
    x, carry, seen = alpha * x0 + sigma * x, solver.init(x), []
    for i, (t, s) in enumerate(itertools.pairwise(ts)):
      x, carry, _ = solver.step(denoise, SCHEDULE, carry, x, int(t), int(s), noise[i + 1 : i + 2])
      seen.append(x[0])
    return jnp.stack(seen)

  zero = jnp.zeros(6)
  np.testing.assert_allclose(levels(zero), np.sqrt(ALPHA_BAR[ts[1:]]) * x0, atol=1e-5)
  variance = np.sum(np.square(jax.jacobian(levels)(zero)), axis=1)
  np.testing.assert_allclose(variance, 1 - ALPHA_BAR[ts[1:]], atol=1e-5)


def test_the_stochastic_solver_of_order_3():
  """k-diffusion's step: with phi_2 = expm1(-u) / u + 1 and phi_3 = phi_2 / u - 1/2 at u = 2 h."""
  levels = (900, 700, 550, 400)
  lam = [np.log(a / (1 - a)) / 2 for a in ALPHA_BAR[list(levels)]]
  x_t, z, *values = np.random.default_rng(0).standard_normal((5, 2, 3))
  with jax.enable_x64(True):
    schedule = ddim_jax.linear_schedule()
    solver = ddim_jax.dpm_solver_pp(3, eta=1.0, curvature=0.5)
    carry = solver.init(jnp.asarray(x_t))
    for t, s, x0 in zip(levels[:-1], levels[1:], values, strict=True):
      alpha, sigma = ALPHA_BAR[t] ** 0.5, (1 - ALPHA_BAR[t]) ** 0.5
      fixed = lambda x, _, x0=x0, alpha=alpha, sigma=sigma: Prediction(
        jnp.asarray(x0), (x - alpha * x0) / sigma
      )
      got, carry, _ = solver.step(fixed, schedule, carry, jnp.asarray(x_t), t, s, jnp.asarray(z))
  h, h_1, h_2 = lam[3] - lam[2], lam[2] - lam[1], lam[1] - lam[0]
  r_0, r_1, u = h_1 / h, h_2 / h, 2 * h
  d_0, d_1 = (values[2] - values[1]) / r_0, (values[1] - values[0]) / r_1
  slope, bend = d_0 + (d_0 - d_1) * r_0 / (r_0 + r_1), (d_0 - d_1) / (r_0 + r_1)
  phi_2 = np.expm1(-u) / u + 1
  phi_3 = phi_2 / u - 0.5
  alpha_s, sigma_s = ALPHA_BAR[400] ** 0.5, (1 - ALPHA_BAR[400]) ** 0.5
  sigma_t = (1 - ALPHA_BAR[550]) ** 0.5
  expected = sigma_s / sigma_t * np.exp(-h) * x_t - alpha_s * np.expm1(-u) * values[2]
  expected += alpha_s * (phi_2 * slope - phi_3 * bend) + sigma_s * np.sqrt(-np.expm1(-u)) * z
  np.testing.assert_allclose(got, expected, atol=1e-10)


@pytest.mark.parametrize(("churn", "inflation"), [(0.0, 1.0), (0.3, 1.0), (0.3, 1.007)])
def test_churn_is_edms_algorithm(churn, inflation):
  low, high = 0.05, 50.0
  x_T, noise = POINTS, np.random.default_rng(0).standard_normal((12, *POINTS.shape))

  def x0_given(x, ratio):
    alpha = np.array(1 / np.sqrt(1 + ratio**2))
    return MIXTURE.x0(alpha * x, alpha, alpha * ratio)

  with jax.enable_x64(True):
    schedule = ddim_jax.linear_schedule()
    solver = ddim_jax.heun(churn=churn, inflation=inflation, interval=(low, high))
    x, denoise = jnp.asarray(x_T), lambda x, t: exact(x, t, schedule)
    ts = timesteps.log_snr(schedule, 12)
    step = jax.jit(lambda x, t, s, z: solver.step(denoise, schedule, (), x, t, s, z)[0])
    for t, s, z in zip(ts[:-1], ts[1:], noise, strict=True):
      x = step(x, t, s, jnp.asarray(z))
  table = np.interp(ts[:-1], np.arange(1, 1001), np.log(ALPHA_BAR[1:]) - np.log1p(-ALPHA_BAR[1:]))
  ratios = np.append(np.exp(-table / 2), 0)
  first = (1 + ratios[0] ** 2) ** 0.5
  expected = oracles.edm(x_T * first, x0_given, ratios, noise, churn, inflation, low, high)
  np.testing.assert_allclose(x, expected, atol=1e-9)


@pytest.mark.parametrize("x64", [False, True])
def test_moments_equal_quadrature(x64):
  nodes, weights = np.polynomial.legendre.leggauss(200)
  p = (nodes + 1) / 2
  with jax.enable_x64(x64):
    for u in (-40.0, -5.0, -1.0, -0.999, -1e-3, 0.0, 1e-6, 0.3, 0.999, 1.0, 2.0, 40.0):
      density = weights * np.exp(u * (p - 1) if u > 0 else u * p)
      got = multistep.moments(jnp.asarray(u, float), 3)
      expected = [np.sum(density * p**k) / np.sum(density) for k in (1, 2, 3)]
      np.testing.assert_allclose(got, expected, rtol=1e-12 if x64 else 3e-5)


def test_one_evaluation_serves_mean_and_variance():
  """XLA merges the two calls of one network that learned its variance."""
  weights = jax.random.normal(KEY, (16, 64)), jax.random.normal(KEY, (64, 32))

  def flops(variance):
    def step(weights, x, t, s):
      network = lambda x, t: jnp.tanh(x @ weights[0]) @ weights[1]
      denoise = ddim_jax.as_denoiser(lambda x, t: network(x, t)[:, :16], SCHEDULE)
      solver = ddim_jax.ddpm((lambda x, t: network(x, t)[:, 16:]) if variance else "small")
      return solver.step(denoise, SCHEDULE, (), x, t, s, x)[0]

    return jax.jit(step).lower(weights, jnp.ones((8, 16)), 900, 800).compile().cost_analysis()["flops"]

  assert flops(True) < 1.2 * flops(False)


def test_refuses():
  for factory, highest in ((ddim_jax.dpm_solver_pp, 3), (ddim_jax.unipc, 3), (ddim_jax.deis, 3)):
    with pytest.raises(ValueError, match=f"order must be an integer from 1 to {highest}, got 4"):
      factory(4)
  with pytest.raises(ValueError, match="from 1 to 2, got 0"):
    ddim_jax.heun(0)
  with pytest.raises(ValueError, match=r"from 1 to 4, got 2\.0"):
    ddim_jax.plms(2.0)
