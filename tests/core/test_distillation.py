"""Distillation: one step of the student is the teacher's two, in closed form and at the loss's minimum."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ddim_jax
from ddim_jax import distillation
from ddim_jax.runs.halving import stages
from tests.oracles import gaussian_eps, gaussian_x0, paper_step

T = 64
SCHEDULE = ddim_jax.cosine_schedule(T)
ALPHA_BAR = np.asarray(SCHEDULE.alpha_bar, np.float64)


@pytest.mark.parametrize("levels", [(64, 48, 32), (33, 20, 2), (16, 8, 0), (40, 31, 22, 11, 3)])
def test_for_normal_data_one_step_is_the_teachers_steps(levels):
  """And the target is that of the paper's algorithm 2, which divides a difference by a difference."""
  mean, variance = 0.3, 0.49
  x_t = jnp.linspace(-2, 2, 9, dtype=jnp.float32)[:, None]

  def denoise(x, t):
    alpha_bar, x = ALPHA_BAR[int(t)], np.asarray(x, np.float64)
    pair = gaussian_x0(x, alpha_bar, mean, variance), gaussian_eps(x, alpha_bar, mean, variance)
    return ddim_jax.Prediction(*(jnp.asarray(value, jnp.float32) for value in pair))

  x = np.asarray(x_t, np.float64)
  for t, s in itertools.pairwise(levels):
    x = paper_step(x, gaussian_eps(x, ALPHA_BAR[t], mean, variance), ALPHA_BAR[t], ALPHA_BAR[s], 0, 0)
  x0 = distillation.target(denoise, SCHEDULE, x_t, levels)
  first, last = ALPHA_BAR[levels[0]], ALPHA_BAR[levels[-1]]
  ratio = np.sqrt((1 - last) / (1 - first))
  paper = (x - ratio * np.asarray(x_t)) / (np.sqrt(last) - ratio * np.sqrt(first))
  np.testing.assert_allclose(x0, paper, atol=1e-5)
  eps = (np.asarray(x_t) - np.sqrt(first) * np.asarray(x0)) / np.sqrt(1 - first)
  reached = ddim_jax.ddim_step(
    SCHEDULE, ddim_jax.Prediction(x0, jnp.asarray(eps, jnp.float32)), levels[0], levels[-1]
  )
  np.testing.assert_allclose(reached, x, atol=1e-5)


def mixture(x, t):
  """The exact denoiser of a mixture of two normal distributions."""
  alpha, sigma = (value[t][:, None].astype(x.dtype) for value in (SCHEDULE.alpha, SCHEDULE.sigma))
  means, deviation = jnp.asarray([[-0.8, 0.5]], x.dtype), 0.2
  total = alpha**2 * deviation**2 + sigma**2
  difference = x - alpha * means
  weights = jax.nn.softmax(
    -(difference**2) / (2 * total) + jnp.log(jnp.asarray([[0.3, 0.7]], x.dtype)), axis=1
  )
  x0 = jnp.sum(weights * (means + alpha * deviation**2 / total * difference), axis=1, keepdims=True)
  return ddim_jax.Prediction(x0, (x - alpha * x0) / sigma)


@pytest.mark.slow
@pytest.mark.parametrize("parameterisation", [ddim_jax.V, ddim_jax.X0], ids=["v", "x0"])
@pytest.mark.parametrize("every", [1, 2])
def test_the_losss_minimiser_is_the_teachers_map(parameterisation, every):
  """The parameters are the outputs themselves, of which the loss is a parabola: one step of Newton's."""
  ts = ddim_jax.timesteps.trailing(T, 4 * every)
  size, seen = 64, []
  keys = jax.random.split(jax.random.key(0), size)
  t = jax.vmap(distillation.student_levels(ts, every), (None, 0))(jax.random.key(1), jnp.arange(size))
  assert set(np.asarray(t).tolist()) == set(ts[:-1:every].tolist())

  def network(params, x, t, labels, keys):
    seen.append(x)
    return params

  losses = distillation.distillation_losses(
    network, lambda labels: mixture, SCHEDULE, ts, every=every, parameterisation=parameterisation
  )
  x0, labels = jnp.full((size, 1), 0.4), jnp.zeros(size, jnp.int32)
  slope = jax.grad(lambda outputs: jnp.sum(losses(outputs, keys, x0, labels, t)))
  zero, one = jnp.zeros((size, 1)), jnp.ones((size, 1))
  outputs = -slope(zero) / (slope(one) - slope(zero))
  for i, start in enumerate(ts[:-1:every]):
    chosen = np.flatnonzero(np.asarray(t) == start)
    x_t, path = seen[0][chosen], ts[i * every : (i + 1) * every + 1]
    teacher = lambda x, t: mixture(x, jnp.broadcast_to(t, x.shape[:1]))
    student = ddim_jax.as_denoiser(lambda x, t, own=outputs[chosen]: own, SCHEDULE, parameterisation)
    key = jax.random.key(0)
    expected, _ = ddim_jax.sample(key, teacher, SCHEDULE, x_t, path)
    np.testing.assert_allclose(
      ddim_jax.sample(key, student, SCHEDULE, x_t, path[[0, -1]])[0], expected, atol=1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize("every", [1, 2, 4])
def test_what_leads_to_where_the_teacher_does_is_consistent_with_itself_and_nothing_else_is(every):
  """For a mixture, from each level to the end of its piece. A level that is wrong misleads the one above."""
  ts = ddim_jax.timesteps.trailing(T, 8)
  size = 64
  t = jax.vmap(distillation.student_levels(ts, 1), (None, 0))(jax.random.key(1), jnp.arange(size))
  assert set(np.asarray(t).tolist()) == set(ts[:-1].tolist())

  def network(off, x, t, labels, keys):
    x0 = jnp.zeros_like(x)
    for i, level in enumerate(ts[:-1]):
      left = ts[i : (i // every + 1) * every + 1]
      exact = distillation.target(mixture, SCHEDULE, x, [jnp.full(size, value) for value in left])
      x0 = jnp.where((t == level)[:, None], exact + off[i], x0)
    return x0

  losses = jax.jit(distillation.consistency_losses(
    network, lambda labels: mixture, SCHEDULE, ts, every=every, parameterisation=ddim_jax.X0,
    weighting=lambda schedule, t, like: jnp.ones((size, 1)),
  ))  # fmt: skip
  data = jax.random.split(jax.random.key(0), size), jnp.full((size, 1), 0.4), jnp.zeros(size, jnp.int32), t
  of_level = lambda off: np.asarray([np.mean(losses(off, *data)[t == level]) for level in ts[:-1]])
  np.testing.assert_allclose(of_level(jnp.zeros(8)), 0, atol=1e-9)
  off = jnp.asarray([0.1 * (i == 1) for i in range(8)])
  rho = np.sqrt(ALPHA_BAR / (1 - ALPHA_BAR + 1e-30))
  taught_on = 0.0 if every == 1 else 0.1 * (rho[ts[every]] - rho[ts[1]]) / (rho[ts[every]] - rho[ts[0]])
  np.testing.assert_allclose(of_level(off)[:3], [taught_on**2, 0.01, 0], rtol=1e-3, atol=1e-9)
  slope = jax.grad(lambda off: jnp.sum(losses(off, *data)))(off)
  assert slope[1] == pytest.approx(
    2 * 0.1 * int(np.sum(np.asarray(t) == ts[1])), rel=1e-3
  )  # none as a teacher of the first


def test_each_student_has_half_the_steps():
  assert stages(16, 4, False) == [(8, 2), (4, 2)]
  assert stages(8, 4, True) == [(8, 1), (4, 2)]
  assert stages(64, 4, True, by=4) == [(64, 1), (16, 4), (4, 4)]
  for S in (1, 3, 8, 50):
    for T in (100, 1000):
      whole, half = (ddim_jax.timesteps.trailing(T, steps) for steps in (2 * S, S))
      np.testing.assert_array_equal(whole[::2], half)
  for start, to in ((4, 4), (12, 4), (4, 8), (8, 0)):
    with pytest.raises(
      ValueError, match=f"start must be to times 2, 4, 8, ..., got start {start} and to {to}"
    ):
      stages(start, to, False)
  with pytest.raises(ValueError, match=r"start must be to times 4, 16, 64, .*, got start 32 and to 4"):
    stages(32, 4, False, by=4)
  with pytest.raises(ValueError, match="by must be at least 2, got 1"):
    stages(32, 4, False, by=1)


@pytest.mark.parametrize(
  ("ts", "every", "message"),
  [
    ([8, 4, 2, 0], 2, "every must divide the 3 steps of ts, got 2"),
    ([8, 4, 2], 2, "ts must be integers that decrease strictly to 0"),
    ([8.0, 4.0, 0.0], 2, "ts must be integers"),
    ([65, 4, 0], 2, r"ts must be in \[0, 64\]"),
  ],
)
@pytest.mark.parametrize("losses", [distillation.distillation_losses, distillation.consistency_losses])
def test_bad_levels_are_named(losses, ts, every, message):
  with pytest.raises(ValueError, match=message):
    losses(None, None, SCHEDULE, ts, every=every)
