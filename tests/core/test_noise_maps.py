"""Noise maps give the data back exactly, have the right distribution, and keep what an edit leaves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ddim_jax
from ddim_jax import timesteps
from ddim_jax.noise_maps import NoiseMaps, decode_noises, encode_noises
from tests import oracles

SCHEDULE = ddim_jax.linear_schedule()
KEY = jax.random.key(0)
ALPHA_BAR = oracles.linear_alpha_bar()
MEANS = {0: -0.8, 1: 0.7}
X0 = MEANS[0] + 0.3 * jax.random.normal(jax.random.key(1), (4, 6))
TS = timesteps.uniform(1000, 12)


def of_class(label):
  """The exact denoiser of normal data around the mean of a class, standard deviation 0.3; None: of both."""

  def x0_of(x, alpha, sigma, mean):
    return mean + alpha * 0.09 / (alpha**2 * 0.09 + sigma**2) * (x - alpha * mean)

  def denoise(x, t):
    alpha, sigma = ddim_jax.schedules.coefficients(SCHEDULE, t, x)
    if label is not None:
      return ddim_jax.Prediction(*pair(x, x0_of(x, alpha, sigma, MEANS[label]), alpha, sigma))
    total = alpha**2 * 0.09 + sigma**2
    logits = (alpha * x * (MEANS[1] - MEANS[0]) - alpha**2 * (MEANS[1] ** 2 - MEANS[0] ** 2) / 2) / total
    share = jax.nn.sigmoid(jnp.sum(logits, axis=-1, keepdims=True))
    ends = [x0_of(x, alpha, sigma, MEANS[i]) for i in (0, 1)]
    return ddim_jax.Prediction(*pair(x, ends[0] + share * (ends[1] - ends[0]), alpha, sigma))

  def pair(x, x0, alpha, sigma):
    return x0, (x - alpha * x0) / sigma

  return denoise


def guided(label, weight):
  return ddim_jax.guide(of_class(label), of_class(None), SCHEDULE, weight)


@pytest.fixture(scope="module")
def round_trip():
  """``(key, x0, ts, eta, weight) -> (maps, data)``, compiled once for each way to draw."""

  def run(independent):
    @jax.jit
    def both(x0, ts, eta, weight):
      denoise = guided(0, weight)
      maps = encode_noises(KEY, denoise, SCHEDULE, x0, ts, eta=eta, independent=independent)
      return maps, decode_noises(denoise, SCHEDULE, maps, ts, eta=eta)

    return both

  return {independent: run(independent) for independent in (True, False)}


@pytest.mark.parametrize("independent", [True, False])
@pytest.mark.parametrize("eta", [1e-3, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("weight", [0.0, 1.0, 3.0, 7.5])
def test_the_data_come_back_for_every_eta_and_weight(round_trip, eta, weight, independent):
  for ts in (TS, timesteps.trailing(1000, 12)):
    maps, back = round_trip[independent](X0, ts, eta, weight)
    scale = max(1.0, float(jnp.abs(maps.moves).max()))
    np.testing.assert_allclose(back, X0, atol=2e-6 * scale)


def test_plain_inversion_with_guidance_does_not_come_back():
  denoise = guided(0, 7.5)
  x_T = ddim_jax.invert(denoise, SCHEDULE, X0, TS)
  back = ddim_jax.sample(KEY, denoise, SCHEDULE, x_T, TS)[0]
  assert float(jnp.sqrt(jnp.mean((back - X0) ** 2))) > 0.05


def test_samples_of_both_kinds_have_the_marginals_of_the_process():
  """For a denoiser that knows the data, moves are ``sigma_s f z``, or what independence asks for."""
  count, x0 = 20_000, jnp.full((20_000, 1), 0.4)
  known = lambda x, t: ddim_jax.denoisers.with_x0(x0, x, t, SCHEDULE)
  ts, eta = np.array([900, 600, 200, 0]), 0.6
  for independent in (False, True):
    maps = encode_noises(KEY, known, SCHEDULE, x0, ts, eta=eta, independent=independent)
    alpha_bar = ALPHA_BAR[ts]
    spread = np.std(np.asarray(maps.x_T))
    assert spread == pytest.approx(np.sqrt(1 - alpha_bar[0]), rel=0.03)
    for i in range(2):
      f = eta * np.sqrt(1 - alpha_bar[i] / (1 - alpha_bar[i]) * (1 - alpha_bar[i + 1]) / alpha_bar[i + 1])
      kept = np.sqrt(1 - f**2)
      expected = f**2 if not independent else 1 + kept**2
      variance = np.var(np.asarray(maps.moves[i])) / (1 - alpha_bar[i + 1])
      assert variance == pytest.approx(expected, rel=6 / np.sqrt(count / 2))
    np.testing.assert_allclose(maps.moves[-1], 0, atol=1e-5)  # at level 0 this network misses nothing


def test_an_edit_moves_towards_the_new_class_and_keeps_the_rest():
  """Classes that differ in their mean alone: all elements move alike, the less the shorter the chain."""
  moved = []
  for strength in (1.0, 0.5, 0.25):
    ts = timesteps.cut(TS, strength)
    maps = encode_noises(KEY, of_class(0), SCHEDULE, X0, ts)
    change = np.asarray(decode_noises(of_class(1), SCHEDULE, maps, ts) - X0)
    assert np.std(change) < 1e-4
    moved.append(np.mean(change))
  assert moved[0] == pytest.approx(MEANS[1] - MEANS[0], abs=1e-3)
  assert moved[0] > moved[1] > moved[2] > 0


def test_a_key_per_image_makes_an_image_the_same_in_any_batch():
  keys = ddim_jax.image_keys(KEY, np.arange(4))
  whole = encode_noises(keys, of_class(0), SCHEDULE, X0, TS)
  alone = encode_noises(keys[2:3], of_class(0), SCHEDULE, X0[2:3], TS)
  np.testing.assert_allclose(whole.x_T[2:3], alone.x_T, atol=1e-6)
  np.testing.assert_allclose(whole.moves[:, 2:3], alone.moves, atol=1e-5)


def test_refuses():
  for eta in (0.0, -0.1, 1.5, np.nan):
    with pytest.raises(ValueError, match=r"eta must be in \(0, 1\]"):
      encode_noises(KEY, of_class(0), SCHEDULE, X0, TS, eta=eta)
  for ts in ([1, 5, 0], [5, 5, 3], [2000, 0]):
    with pytest.raises(ValueError, match="ts must"):
      encode_noises(KEY, of_class(0), SCHEDULE, X0, np.array(ts))
  with pytest.raises(ValueError, match="one move for each of 12 steps"):
    decode_noises(of_class(0), SCHEDULE, NoiseMaps(X0, jnp.zeros((3, 4, 6))), TS)
