"""Refinement, damping and other solvers; plain and refined DDIM inversion are in test_sampling.py."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ddim_jax
from ddim_jax import bijective, inversion, timesteps
from ddim_jax.schedules import coefficients
from ddim_jax.solvers import ddim_step

SCHEDULE = ddim_jax.linear_schedule()
KEY = jax.random.key(0)
X0 = jax.random.normal(KEY, (4, 6))
TS = timesteps.uniform(1000, 20)


def network(strength):
  """Smooth, not linear, and the steeper in its input the larger ``strength``."""
  return ddim_jax.as_denoiser(lambda x, t: jnp.sin(strength * x), SCHEDULE)


def error(strength, refine, damping, ts=TS, solver=None):
  denoise = network(strength)

  @jax.jit
  def back(x0):
    x_T = ddim_jax.invert(denoise, SCHEDULE, x0, ts, refine=refine, damping=damping, solver=solver)
    return ddim_jax.sample(KEY, denoise, SCHEDULE, x_T, ts, solver=solver)[0]

  return float(jnp.sqrt(jnp.mean((back(X0) - X0) ** 2)))


def linear(slopes, schedule=SCHEDULE):
  """``(denoise, ts)``: one step whose fixed point has these slopes, all negative: it oscillates."""
  ts = np.array([900, 300])
  alpha, sigma = np.asarray(SCHEDULE.alpha)[ts], np.asarray(SCHEDULE.sigma)[ts]
  c = abs(sigma[1] * alpha[0] / alpha[1] - sigma[0])
  return ddim_jax.as_denoiser(
    lambda x, t: -jnp.asarray([slopes], x.dtype) / jnp.asarray(c, x.dtype) * x, schedule
  ), ts


def test_one_step_of_memory_is_the_secant_method():
  """Straight and alike in every direction: exact after two moves, where the fixed point alone diverges."""
  denoise, ts = linear([1.5])
  x_1, x_2 = (ddim_jax.invert(denoise, SCHEDULE, X0, ts, refine=k) for k in (1, 2))
  miss = lambda x_t: np.abs(ddim_jax.sample(KEY, denoise, SCHEDULE, x_t, ts)[0] - X0).max()
  assert miss(x_1) > 1
  assert miss(x_2) < 1e-3


def test_acceleration_is_andersons():
  """Against the definition: the weights of two points that make the smallest sum of their misses."""
  slopes = np.array([1.5, 0.2, -0.3, 0.6, 0.9, 1.1])
  with jax.enable_x64(True):
    schedule, x0 = ddim_jax.linear_schedule(), jnp.asarray(X0, jnp.float64)
    denoise, ts = linear(slopes, schedule)
    invert = jax.jit(lambda k: ddim_jax.invert(denoise, schedule, x0, ts, refine=k, damping=0.8))
    found = [invert(k) for k in range(7)]
    gain = np.sqrt(schedule.alpha_bar[ts[0]] / schedule.alpha_bar[ts[1]])

    @jax.jit
    def missed(x_t):
      return gain * (x0 - ddim_jax.sample(KEY, denoise, schedule, x_t, ts)[0])

    np.testing.assert_allclose(found[1], found[0] + 0.8 * missed(found[0]), rtol=1e-9)
    for before, now, after in zip(found, found[1:], found[2:], strict=False):
      for i in range(len(x0)):
        f = np.stack([missed(before)[i], missed(now)[i]], axis=1)
        w = np.linalg.solve(np.block([[f.T @ f, np.ones((2, 1))], [np.ones((1, 2)), 0.0]]), [0, 0, 1])[:2]
        expected = np.stack([before[i], now[i]], axis=1) @ w + 0.8 * f @ w
        np.testing.assert_allclose(after[i], expected, rtol=1e-6)


def test_converges_where_the_fixed_point_alone_diverges_and_stops_when_it_has():
  denoise, ts = linear([1.5, 0.2, -0.3, 0.6, 0.9, 1.1])
  counts = []
  for tolerance in (1e-6, 1e-3):
    x_t, count = inversion.step_up(denoise, SCHEDULE, ddim_jax.ddim(), X0, ts[1], ts[0], 1000, 1.0, tolerance)
    back = ddim_jax.sample(KEY, denoise, SCHEDULE, x_t, ts)[0]
    assert np.sqrt(np.mean((back - X0) ** 2, axis=1)).max() <= 1.1 * tolerance
    counts.append(int(count))
  assert counts[1] < counts[0] < 1000


def test_an_example_is_the_same_beside_one_that_takes_longer():
  """Those that land where they should are left alone while others are refined."""
  denoise = ddim_jax.as_denoiser(lambda x, t: jnp.sin(x), SCHEDULE)
  invert = jax.jit(lambda x: ddim_jax.invert(denoise, SCHEDULE, x, TS, refine=50))
  hard = jnp.concatenate([0.01 * X0[:1], 3 * X0[1:]])
  np.testing.assert_allclose(invert(hard)[:1], invert(hard[:1]), rtol=1e-6)


def test_a_fixed_number_of_refinements_can_be_differentiated():
  with jax.enable_x64(True):
    schedule, x0 = ddim_jax.linear_schedule(), jnp.asarray(X0, jnp.float64)
    denoise = ddim_jax.as_denoiser(lambda x, t: jnp.sin(x), schedule)
    loss = jax.jit(lambda x0: jnp.sum(ddim_jax.invert(denoise, schedule, x0, TS, refine=3, tolerance=0) ** 3))
    direction = jnp.cos(jnp.arange(x0.size, dtype=x0.dtype)).reshape(x0.shape)
    slope = (loss(x0 + 1e-6 * direction) - loss(x0 - 1e-6 * direction)) / 2e-6
    np.testing.assert_allclose(jnp.sum(jax.jit(jax.grad(loss))(x0) * direction), slope, rtol=1e-6)


def test_refinement_inverts_other_memoryless_solvers():
  """A solver that is not DDIM: Heun's rule in sigma / alpha, two evaluations a step."""

  def step(denoise, schedule, carry, x_t, t, s, z):
    first = denoise(x_t, t)
    there = denoise(ddim_step(schedule, first, t, s), jnp.maximum(s, 1))
    eps = (first.eps + there.eps) / 2
    alpha, sigma = schedule.alpha[t], schedule.sigma[t]
    return ddim_step(schedule, ddim_jax.Prediction((x_t - sigma * eps) / alpha, eps), t, s), carry, first

  heun = ddim_jax.Solver(lambda x: (), step)
  ts = timesteps.uniform(1000, 50)
  assert error(0.5, 12, 1.0, ts, heun) < 1e-3
  assert error(0.5, 0, 1.0, ts, heun) > 1e-2


def test_refuses_a_solver_with_memory():
  with pytest.raises(ValueError, match="must not remember"):
    ddim_jax.invert(network(1.0), SCHEDULE, X0, TS, solver=bijective.bijective())


WEIGHTS = {"bdia": bijective.bdia(), "bdia 0.95": bijective.bdia(0.95), "belm": bijective.belm}


@pytest.mark.parametrize("name", WEIGHTS)
def test_the_round_trip_is_exact_where_the_fixed_point_diverges(name):
  with jax.enable_x64(True):
    schedule, ts = ddim_jax.linear_schedule(), timesteps.uniform(1000, 10)
    x0 = jnp.asarray(np.random.default_rng(0).normal(size=(4, 6)))
    for strength, atol in ((3, 1e-9), (6, 1e-7)):  # rounding grows with the strength
      wild = ddim_jax.as_denoiser(lambda x, t, strength=strength: jnp.sin(strength * x), schedule)

      @jax.jit
      def back(x0, wild=wild):
        pair = bijective.encode(wild, schedule, x0, ts, weight=WEIGHTS[name])
        return bijective.decode(wild, schedule, pair, ts, weight=WEIGHTS[name])

      np.testing.assert_allclose(back(x0), x0, atol=atol)
    x_T = ddim_jax.invert(wild, schedule, x0, ts, refine=20)
    assert np.abs(ddim_jax.sample(KEY, wild, schedule, x_T, ts)[0] - x0).max() > 1


def test_the_round_trip_in_float32():
  pair = bijective.encode(network(1.0), SCHEDULE, X0, TS)
  np.testing.assert_allclose(bijective.decode(network(1.0), SCHEDULE, pair, TS), X0, atol=1e-4)


def by_hand(x_r, x_t, eps, r, t, s, a):
  """The published two-step rule in y = x / alpha and h = differences of sigma / alpha, float64."""
  log_snr = np.asarray(SCHEDULE.log_snr, np.float64)
  alpha, ratio = (1 + np.exp(-log_snr)) ** -0.5, np.exp(-log_snr / 2)
  h_s, h_r = ratio[t] - ratio[s], ratio[r] - ratio[t]
  a = h_s**2 / h_r**2 if a is None else a * alpha[r] / alpha[s]
  y = a * x_r / alpha[r] + (1 - a) * x_t / alpha[t] - (h_s + a * h_r) * eps
  return alpha[s] * y


@pytest.mark.parametrize(("name", "a"), [("bdia", 1.0), ("bdia 0.95", 0.95), ("belm", None)])
def test_steps_are_the_papers(name, a):
  x_r, x_t = np.asarray(jax.random.normal(jax.random.key(1), (2, 4, 6)), np.float64)
  solver = bijective.bijective(WEIGHTS[name])
  x_r, x_t = (jnp.asarray(x, jnp.float32) for x in (x_r, x_t))
  carry = jnp.array(False), coefficients(SCHEDULE, 700, x_r), x_r
  out = solver.step(network(1.0), SCHEDULE, carry, x_t, jnp.array(600), 480, 0.0)[0]
  x_r, x_t = np.asarray(x_r, np.float64), np.asarray(x_t, np.float64)
  np.testing.assert_allclose(out, by_hand(x_r, x_t, np.sin(x_t), 700, 600, 480, a), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", WEIGHTS)
def test_as_a_solver_it_decodes_the_pair_that_a_ddim_step_begins(name):
  solver = bijective.bijective(WEIGHTS[name])
  x_0 = ddim_jax.sample(KEY, network(1.0), SCHEDULE, X0, TS, solver=solver)[0]
  x_next = ddim_step(SCHEDULE, network(1.0)(X0, TS[0]), TS[0], TS[1])
  decoded = bijective.decode(network(1.0), SCHEDULE, bijective.Pair(X0, x_next), TS, weight=WEIGHTS[name])
  np.testing.assert_allclose(x_0, decoded, atol=1e-4)


@pytest.mark.parametrize("name", ["bdia", "belm"])
def test_the_two_step_rule_is_of_second_order(name):
  """Gaussian data, where sampling multiplies x_T by a known number; DDIM's error is of first order."""
  with jax.enable_x64(True):
    schedule, variance = ddim_jax.cosine_schedule(), 0.25
    spread = lambda t: jnp.sqrt(schedule.alpha_bar[t] * variance + 1 - schedule.alpha_bar[t])
    denoise = ddim_jax.as_denoiser(lambda x, t: schedule.sigma[t] * x / spread(t) ** 2, schedule)

    def miss(S, solver):
      ts = np.linspace(900, 100, S + 1).astype(np.int32)
      out = ddim_jax.sample(KEY, denoise, schedule, jnp.ones((1, 1)), ts, solver=solver)[0]
      return abs(float(out[0, 0] - spread(100) / spread(900)))

    solver = bijective.bijective(WEIGHTS[name])
    slope = np.log2(miss(40, solver) / miss(80, solver))
    assert slope == pytest.approx(2, abs=0.25)
    assert np.log2(miss(40, None) / miss(80, None)) == pytest.approx(1, abs=0.25)


def test_refine_and_damping_may_be_traced():
  traced = jax.jit(
    chex.assert_max_traces(
      lambda k, d: ddim_jax.invert(network(1.0), SCHEDULE, X0, TS, refine=k, damping=d), n=1
    )
  )
  for k, d in ((0, 1.0), (3, 1.0), (4, 0.7)):
    static = ddim_jax.invert(network(1.0), SCHEDULE, X0, TS, refine=k, damping=d)
    np.testing.assert_allclose(traced(k, d), static, rtol=1e-4, atol=1e-4)


def test_one_trace_and_refusals():
  @jax.jit
  @chex.assert_max_traces(n=1)
  def run(gamma, ts, x0):
    weight = bijective.bdia(gamma)
    pair = bijective.encode(network(1.0), SCHEDULE, x0, ts, weight=weight)
    return bijective.decode(network(1.0), SCHEDULE, pair, ts, weight=weight)

  for gamma, ts in ((1.0, TS), (0.9, timesteps.trailing(1000, 20))):
    np.testing.assert_allclose(run(gamma, ts, X0), X0, atol=1e-2)
  with pytest.raises(ValueError, match="at least two steps here, got 1"):
    bijective.encode(network(1.0), SCHEDULE, X0, np.array([5, 0]))
