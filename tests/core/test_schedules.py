import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ddim_jax
from ddim_jax.schedules import coefficients, level_at, log_snr_at
from tests import oracles

FACTORIES = [
  ddim_jax.linear_schedule,
  ddim_jax.quadratic_schedule,
  ddim_jax.cosine_schedule,
  ddim_jax.constant_schedule,
  ddim_jax.sigmoid_schedule,
  ddim_jax.jsd_schedule,
  ddim_jax.warmup_schedule,
  lambda T=1000: ddim_jax.zero_terminal_snr(ddim_jax.linear_schedule(max(T, 2))),
]


@pytest.mark.parametrize("factory", FACTORIES)
@pytest.mark.parametrize("T", [1, 7, 1000])
def test_every_level_is_finite_and_noisier_than_the_one_before(factory, T):
  schedule = factory(T)
  chex.assert_tree_all_finite((schedule, schedule.alpha_bar, schedule.alpha, schedule.sigma))
  chex.assert_shape(schedule.log_snr, (schedule.T + 1,))
  assert schedule.log_snr.dtype == jnp.zeros(()).dtype  # 64 bits where they are on
  assert np.all(np.diff(schedule.log_snr) < 0)
  assert schedule.alpha_bar[0] == 1
  assert schedule.sigma[0] < 1e-15
  np.testing.assert_allclose(schedule.alpha**2 + schedule.sigma**2, 1, rtol=1e-6)
  np.testing.assert_allclose(schedule.alpha**2, schedule.alpha_bar, rtol=1e-5)


def test_coefficients_keep_full_precision_where_a_float32_table_does_not():
  schedule, exact = ddim_jax.linear_schedule(), oracles.linear_alpha_bar()
  np.testing.assert_allclose(schedule.sigma[1:], np.sqrt(1 - exact[1:]), rtol=1e-6)
  np.testing.assert_allclose(schedule.alpha, np.sqrt(exact), rtol=2e-6)
  table = exact.astype(np.float32)
  assert abs((1 - table[1]) / (1 - exact[1]) - 1) > 1e-4  # what this representation avoids


@pytest.mark.parametrize(
  ("name", "factory"),
  [
    ("linear", ddim_jax.linear_schedule),
    ("scaled_linear", ddim_jax.quadratic_schedule),
    ("squaredcos_cap_v2", ddim_jax.cosine_schedule),
    ("sigmoid", ddim_jax.sigmoid_schedule),
  ],
)
def test_equals_diffusers(name, factory):
  diffusers = pytest.importorskip("diffusers")
  kwargs = {} if name == "squaredcos_cap_v2" else {"beta_start": 1e-4, "beta_end": 0.02}
  theirs = diffusers.DDPMScheduler(beta_schedule=name, **kwargs).alphas_cumprod.numpy()
  np.testing.assert_allclose(factory().alpha_bar[1:], theirs, rtol=5e-4, atol=1e-9)


def test_zero_terminal_snr_equals_diffusers():
  scheduling = pytest.importorskip("diffusers.schedulers.scheduling_ddim")
  torch = pytest.importorskip("torch")
  betas = scheduling.rescale_zero_terminal_snr(torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64))
  ours = ddim_jax.zero_terminal_snr(ddim_jax.linear_schedule())
  np.testing.assert_allclose(ours.alpha_bar[1:], np.cumprod(1 - betas.numpy()), atol=1e-6)
  assert ours.alpha_bar[-1] < 1e-30
  np.testing.assert_allclose(ours.alpha_bar[1], ddim_jax.linear_schedule().alpha_bar[1], rtol=1e-6)


def test_closed_forms():
  t = np.arange(101)
  np.testing.assert_allclose(ddim_jax.jsd_schedule(100).alpha_bar, 1 - t / 100, atol=1e-6)
  np.testing.assert_allclose(ddim_jax.constant_schedule(100, 0.1).alpha_bar, 0.9**t, rtol=1e-5)
  warm = -np.diff(np.log(np.asarray(ddim_jax.warmup_schedule(100, 1e-3, 0.1, 0.5).alpha_bar, np.float64)))
  np.testing.assert_allclose(1 - np.exp(-warm[50:]), 0.1, rtol=1e-3)
  np.testing.assert_allclose(1 - np.exp(-warm[:50]), np.linspace(1e-3, 0.1, 50), rtol=1e-3)


def test_from_alpha_bar_is_the_inverse_of_the_property():
  alpha_bar = oracles.linear_alpha_bar()
  for values in (alpha_bar, alpha_bar[1:]):
    schedule = ddim_jax.from_alpha_bar(values)
    np.testing.assert_allclose(schedule.log_snr, ddim_jax.linear_schedule().log_snr, atol=1e-5)


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda: ddim_jax.from_betas([]), "betas"),
    (lambda: ddim_jax.from_betas([0.1, np.nan]), "finite"),
    (lambda: ddim_jax.from_betas([0.0, 0.1]), r"\(0, 1\)"),
    (lambda: ddim_jax.from_betas([1.0, 0.1]), r"\(0, 1\)"),
    (lambda: ddim_jax.from_betas([0.1, 1.1]), r"1\.1"),
    (lambda: ddim_jax.from_alpha_bar([0.5, 0.6]), "decrease"),
    (lambda: ddim_jax.from_alpha_bar([1.0]), "decrease"),
    (lambda: ddim_jax.linear_schedule(0), "T must be a positive integer, got 0"),
    (lambda: ddim_jax.linear_schedule(10.0), r"10\.0"),
    (lambda: ddim_jax.quadratic_schedule(10, -1e-4), "beta_start"),
    (lambda: ddim_jax.warmup_schedule(fraction=2), "fraction"),
    (lambda: ddim_jax.cosine_schedule(offset=-1), "offset"),
    (lambda: ddim_jax.zero_terminal_snr(ddim_jax.linear_schedule(1)), "at least 2"),
  ],
)
def test_refuses(make, message):
  with pytest.raises(ValueError, match=message):
    make()


def test_a_level_out_of_range_cannot_pass_for_another():
  schedule, x = ddim_jax.linear_schedule(10), jnp.zeros((2, 3))
  for t in (-1, 11, np.array([0, 11]), -0.1, 10.5, np.nan):
    with pytest.raises(ValueError, match=r"\[0, 10\]"):
      coefficients(schedule, t, x)
    with pytest.raises(ValueError, match=r"\[0, 10\]"):
      coefficients(schedule, jnp.asarray(t), x)
    assert np.isnan(jax.jit(lambda t: coefficients(schedule, t, x)[0])(t)).any()
  with pytest.raises(ValueError, match="integer or floating point, got dtype bool"):
    coefficients(schedule, True, x)
  with pytest.raises(ValueError, match="one per example"):
    coefficients(schedule, np.zeros(3, int), x)


@pytest.mark.parametrize("factory", FACTORIES)
def test_real_levels_are_linear_in_log_snr_and_have_an_inverse(factory):
  schedule, x = factory(20), jnp.zeros((1,))
  table = np.asarray(schedule.log_snr, np.float64)
  levels = np.linspace(1, 20, 58)
  got = np.array([log_snr_at(schedule, t, x).squeeze() for t in levels])
  np.testing.assert_allclose(got, np.interp(levels, np.arange(21), table), rtol=1e-5, atol=1e-6)
  np.testing.assert_allclose(level_at(schedule, jnp.asarray(got)), levels, rtol=1e-5)
  for t in range(21):  # a whole number is that level, to the bit
    np.testing.assert_array_equal(log_snr_at(schedule, float(t), x), log_snr_at(schedule, t, x))
  np.testing.assert_array_equal(level_at(schedule, jnp.array([100.0, -100.0])), [0, 20])


class Coefficients(chex.TestCase):
  @chex.variants(with_jit=True, without_jit=True, with_pmap=True)
  def test_shapes_and_variants(self):
    schedule, x = ddim_jax.linear_schedule(), jnp.zeros((2, 3, 4))
    get = self.variant(lambda schedule, t: coefficients(schedule, t, x))
    alpha, sigma = jax.tree.map(np.asarray, get(schedule, jnp.array([1, 1000])))
    alpha, sigma = (v.reshape(-1, 2, 1, 1)[0] for v in (alpha, sigma))
    exact = oracles.linear_alpha_bar()[[1, 1000]]
    np.testing.assert_allclose(alpha[:, 0, 0], np.sqrt(exact), rtol=1e-5)
    np.testing.assert_allclose(sigma[:, 0, 0], np.sqrt(1 - exact), rtol=1e-5)


def test_float64_when_asked_for():
  with jax.enable_x64(True):
    schedule = ddim_jax.linear_schedule()
    assert schedule.log_snr.dtype == jnp.float64
    np.testing.assert_allclose(schedule.alpha_bar, oracles.linear_alpha_bar(), rtol=1e-12)
