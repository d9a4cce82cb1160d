"""EDM and rectified flow as schedules and parameterisations, against their own formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import ddim_jax
from ddim_jax import continuous, training
from ddim_jax.schedules import coefficients, level_at, log_snr_at
from tests import oracles

KEY = jax.random.key(0)
X0, EPS = np.random.default_rng(0).standard_normal((2, 5, 3))
MEAN, VARIANCE = 0.3, 0.25


def test_the_paths_are_what_their_papers_say():
  edm, flow = ddim_jax.edm_schedule(20), ddim_jax.flow_schedule(20)
  ratio = np.asarray(edm.sigma / edm.alpha)[1:]
  i = np.arange(20)
  karras = (80 ** (1 / 7) + i / 19 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7  # equation (5)
  np.testing.assert_allclose(ratio[::-1], karras, rtol=2e-6)
  u = np.arange(1, 20) / 20
  np.testing.assert_allclose((flow.sigma / flow.alpha)[1:-1], u / (1 - u), rtol=2e-6)
  assert flow.alpha[20] < 1e-15
  shifted = ddim_jax.flow_schedule(20, shift=3.0)
  u = 3 * u / (1 + 2 * u)
  np.testing.assert_allclose((shifted.sigma / shifted.alpha)[1:-1], u / (1 - u), rtol=2e-6)


def test_any_path_is_a_schedule():
  linear = ddim_jax.linear_schedule()
  for scale in (1.0, np.linspace(0.5, 40, 1000)):
    alpha, sigma = np.asarray(linear.alpha, np.float64)[1:], np.asarray(linear.sigma, np.float64)[1:]
    made = ddim_jax.from_alpha_sigma(scale * alpha, scale * sigma)
    np.testing.assert_allclose(made.log_snr, linear.log_snr, atol=2e-5)
  with_clean = ddim_jax.from_alpha_sigma([1, 0.5, 0.0], [0, 0.5, 1.0])
  np.testing.assert_allclose(with_clean.log_snr, [80, 0, -80], atol=1e-6)
  assert ddim_jax.from_alpha_sigma(1.0, [0.1, 2.0]).T == 2


@pytest.mark.parametrize("t", [1, 7.3, 200, 999.5, 1000])
@pytest.mark.parametrize("sigma_data", [0.5, 1.3])
def test_edm_is_table_1_of_its_paper(t, sigma_data):
  with jax.enable_x64(True):
    schedule, parameterisation = ddim_jax.edm_schedule(), ddim_jax.edm(sigma_data)
    x0, eps = jnp.asarray(X0), jnp.asarray(EPS)
    alpha, sigma = coefficients(schedule, t, x0)
    s = float((sigma / alpha).squeeze())
    noisy = X0 + s * EPS
    total = s**2 + sigma_data**2
    c_skip, c_out, c_in = sigma_data**2 / total, s * sigma_data / total**0.5, total**-0.5
    F = np.sin(X0 + 2 * EPS)
    x_t = ddim_jax.add_noise(schedule, x0, eps, t)
    prediction = parameterisation.decode(jnp.asarray(F), x_t, alpha, sigma)
    np.testing.assert_allclose(prediction.x0, c_skip * noisy + c_out * F, rtol=1e-9)
    np.testing.assert_allclose(alpha * prediction.x0 + sigma * prediction.eps, x_t, rtol=1e-9)
    np.testing.assert_allclose(
      parameterisation.target(x0, eps, alpha, sigma), (X0 - c_skip * noisy) / c_out, rtol=1e-7, atol=1e-9
    )
    given, noise = ddim_jax.edm_input(schedule, x_t, t, sigma_data)
    np.testing.assert_allclose(given, c_in * noisy, rtol=1e-9)
    assert float(noise) == pytest.approx(np.log(s) / 4, rel=1e-9)


@pytest.mark.parametrize("t", [1, 7.3, 200, 1000])
def test_flow_is_the_velocity_of_the_straight_line(t):
  with jax.enable_x64(True):
    schedule = ddim_jax.flow_schedule()
    x0, eps = jnp.asarray(X0), jnp.asarray(EPS)
    x_t = ddim_jax.add_noise(schedule, x0, eps, t)
    alpha, sigma = coefficients(schedule, t, x0)
    u = float((sigma / (alpha + sigma)).squeeze())
    line, slope = (1 - u) * X0 + u * EPS, ddim_jax.FLOW.target(x0, eps, alpha, sigma)
    np.testing.assert_array_equal(slope, eps - x0)
    given, time = ddim_jax.flow_input(schedule, x_t, t)
    np.testing.assert_allclose(given, line, atol=1e-12)
    assert float(time) == pytest.approx(u, rel=1e-12)
    if float(t).is_integer():
      assert u == pytest.approx(t / 1000, rel=1e-9)
    prediction = ddim_jax.FLOW.decode(slope, x_t, alpha, sigma)
    np.testing.assert_allclose(prediction.x0, X0, atol=1e-12)
    np.testing.assert_allclose(prediction.eps, EPS, atol=1e-12)


def edm_network(x, c_noise):
  """EDM's network for normal data, from its own equations (7) and (8)."""
  s = jnp.exp(4 * c_noise)
  total = s**2 + 0.5**2
  noisy = x * total**0.5
  denoised = MEAN + VARIANCE / (VARIANCE + s**2) * (noisy - MEAN)
  return (denoised - 0.5**2 / total * noisy) / (s * 0.5 / total**0.5)


def flow_network(x, u):
  """The velocity ``E[eps - x0 | x]`` of the straight line from normal data to noise."""
  total = (1 - u) ** 2 * VARIANCE + u**2
  off = x - (1 - u) * MEAN
  return u / total * off - (MEAN + (1 - u) * VARIANCE / total * off)


FAMILY = {
  "EDM": (ddim_jax.edm_schedule, ddim_jax.EDM, edm_network, ddim_jax.edm_input),
  "FLOW": (ddim_jax.flow_schedule, ddim_jax.FLOW, flow_network, ddim_jax.flow_input),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILY)
def test_a_network_in_its_own_coordinates_samples_normal_data(name):
  """Every step is affine: one from level t to s against the closed form, and all the way by a solver."""
  with jax.enable_x64(True):
    make, parameterisation, network, given = FAMILY[name]
    schedule = make(1000)
    denoise = ddim_jax.as_denoiser(lambda x, t: network(*given(schedule, x, t)), schedule, parameterisation)
    x = jnp.asarray(3 * X0)
    for t in (2, 100.5, 700, 999):
      alpha_bar = float(jax.nn.sigmoid(log_snr_at(schedule, t, x)).squeeze())
      prediction = denoise(x, t)
      expected = oracles.gaussian_x0(3 * X0, alpha_bar, MEAN, VARIANCE)
      np.testing.assert_allclose(prediction.x0, expected, rtol=1e-7, atol=1e-9)
      np.testing.assert_allclose(
        prediction.eps, oracles.gaussian_eps(3 * X0, alpha_bar, MEAN, VARIANCE), rtol=1e-7, atol=1e-9
      )
    ts = level_at(schedule, jnp.linspace(*(log_snr_at(schedule, t, x).squeeze() for t in (990, 30)), 81))
    out = ddim_jax.sample(KEY, denoise, schedule, x, ts, solver=ddim_jax.unipc(3))[0]
    ends = [float(jax.nn.sigmoid(log_snr_at(schedule, t, x)).squeeze()) for t in (990, 30)]
    np.testing.assert_allclose(out, oracles.gaussian_flow(3 * X0, *ends, MEAN, VARIANCE), atol=5e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("make", "parameterisation", "weight"),
  [
    (ddim_jax.edm_schedule, ddim_jax.EDM, continuous.edm_weight()),
    (ddim_jax.flow_schedule, ddim_jax.FLOW, continuous.flow_weight),
    (ddim_jax.linear_schedule, ddim_jax.edm(1.7), continuous.edm_weight(1.7)),
  ],
)
def test_the_loss_in_the_output_is_the_weighted_loss_in_x0(make, parameterisation, weight):
  with jax.enable_x64(True):
    schedule, x0, keys = make(), jnp.asarray(X0), jax.random.split(KEY, 5)
    t = jnp.asarray([1.0, 3.7, 200, 750.25, 990])
    network = lambda params, x, t, labels, keys: jnp.sin(3 * x) + params
    own = training.example_losses(network, schedule, parameterisation)
    weighted = training.example_losses(network, schedule, parameterisation, weight)
    labels = jnp.zeros(5, int)
    np.testing.assert_allclose(own(0.1, keys, x0, labels, t), weighted(0.1, keys, x0, labels, t), rtol=1e-7)
  s = 0.7
  like = jnp.zeros((1, 1))
  level = level_at(ddim_jax.edm_schedule(), jnp.asarray(-2 * np.log(s)))
  got = continuous.edm_weight(0.5)(ddim_jax.edm_schedule(), level, like)
  assert float(got.squeeze()) == pytest.approx((s**2 + 0.25) / (s * 0.5) ** 2, rel=1e-4)


@pytest.mark.parametrize(
  ("levels", "make", "mean", "std"),
  [
    (continuous.log_normal_levels, ddim_jax.edm_schedule, -1.2, 1.2),
    (continuous.logit_normal_levels, ddim_jax.flow_schedule, 0.0, 1.0),
  ],
)
def test_levels_follow_their_distribution(levels, make, mean, std):
  schedule = make()
  t = jax.jit(jax.vmap(levels(schedule), (None, 0)))(KEY, jnp.arange(4000))
  assert t.dtype == schedule.log_snr.dtype
  assert np.all((t >= 1) & (t <= 1000))
  log_ratio = np.asarray(-log_snr_at(schedule, t, t) / 2)
  assert scipy.stats.kstest((log_ratio - mean) / std, "norm").pvalue > 0.01


def test_levels_stay_within_the_schedule():
  t = jax.vmap(continuous.log_normal_levels(ddim_jax.linear_schedule(), 0.0, 30.0), (None, 0))(
    KEY, jnp.arange(200)
  )
  assert t.min() == 1
  assert t.max() == 1000


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILY)
def test_training_at_real_levels_finds_the_best_denoiser(name):
  """A network with the exact form and two unknown numbers, by stochastic gradient descent."""
  import optax

  make, parameterisation, _, _ = FAMILY[name]
  schedule = make()
  levels = {"EDM": continuous.log_normal_levels, "FLOW": continuous.logit_normal_levels}[name](schedule)

  def network(params, x, t, labels, keys):
    alpha, sigma = coefficients(schedule, t, x)
    total = alpha**2 * params["variance"] + sigma**2
    off = x - alpha * params["mean"]
    x0, eps = params["mean"] + alpha * params["variance"] / total * off, sigma / total * off
    return parameterisation.target(x0, eps, alpha, sigma)

  losses = training.example_losses(network, schedule, parameterisation)
  optimizer = optax.adam(optax.cosine_decay_schedule(3e-2, 300))
  step = training.make_train_step(losses, levels, optimizer, training.constant_decay(0.0))
  images = MEAN + VARIANCE**0.5 * jax.random.normal(KEY, (2048, 4))
  labels = jnp.zeros(2048, jnp.int32)
  state = training.create_state({"mean": jnp.zeros(()), "variance": jnp.ones(())}, optimizer)
  advance = lambda state, _: (step(state, KEY, images, labels)[0], None)
  with jax.numpy_dtype_promotion("standard"):  # Adam's
    params = jax.jit(lambda state: jax.lax.scan(advance, state, length=300))(state)[0].params
  assert float(params["mean"]) == pytest.approx(float(images.mean()), abs=0.03)
  assert float(params["variance"]) == pytest.approx(float(images.var()), abs=0.03)


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda: ddim_jax.edm(0), "sigma_data must be positive and finite, got 0"),
    (lambda: ddim_jax.edm(np.nan), "sigma_data"),
    (lambda: ddim_jax.edm_schedule(sigma_min=0), "sigma_min"),
    (lambda: ddim_jax.edm_schedule(sigma_min=90), "rising, got 90, 80"),
    (lambda: ddim_jax.edm_schedule(0), "T must be a positive integer, got 0"),
    (lambda: ddim_jax.flow_schedule(shift=-1.0), r"shift must be positive and finite, got -1\.0"),
    (lambda: ddim_jax.from_alpha_sigma(1.0, [0.2, 0.1]), "rise strictly"),
    (lambda: ddim_jax.from_alpha_sigma([1.0, -0.1], [0.2, 0.1]), "at least 0"),
    (lambda: ddim_jax.from_alpha_sigma([0.0], [0.0]), "not both 0"),
    (lambda: ddim_jax.from_alpha_sigma(1.0, [0.0]), "positive from level 1"),
    (lambda: ddim_jax.from_alpha_sigma(1.0, np.inf), "finite"),
    (lambda: continuous.log_normal_levels(ddim_jax.edm_schedule(), std=-1), "std must be at least 0"),
  ],
)
def test_refuses(make, message):
  with pytest.raises(ValueError, match=message):
    make()
