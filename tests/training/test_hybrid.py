"""The loss of networks that also predict variances: L_simple + 0.001 L_vlb of arXiv:2102.09672."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.stats import norm

import ddim_jax
from ddim_jax import models, training
from ddim_jax.runs import fit, objective
from ddim_jax.scaling import Scaling
from tests import oracles

SHAPE = (3, 2, 1)
SCHEDULE = ddim_jax.linear_schedule()
KEYS = jax.random.split(jax.random.key(0), 4)
LEVELS = np.array([1, 2, 500, 1000])
X0 = np.random.default_rng(0).integers(0, 256, (4, *SHAPE)) / 127.5 - 1


def network(params, x, t, labels, keys):
  """Bounded, so that v leaves [-1, 1] for some: shifted and scaled copies of the sample."""
  prediction = params["a"] * x + 0.2 * jnp.sin(t.astype(x.dtype))[:, None, None, None]
  return jnp.concatenate([prediction, jnp.tanh(params["b"] * x + 0.1)], axis=-1)


PARAMS = {"a": jnp.array(0.9), "b": jnp.array(0.6)}


def expected():
  """From the paper: normal distributions of the process by its betas, one number after another."""
  bars = oracles.linear_alpha_bar()
  noise_keys = training.split_each(KEYS)[0]
  eps = np.stack([np.asarray(jax.random.normal(key, SHAPE)) for key in noise_keys]).astype(np.float64)
  found = []
  for x0, noise, t in zip(X0, eps, LEVELS, strict=True):
    x_t = np.sqrt(bars[t]) * x0 + np.sqrt(1 - bars[t]) * noise
    prediction, v = 0.9 * x_t + 0.2 * np.sin(t), np.tanh(0.6 * x_t + 0.1)
    guess = (x_t - np.sqrt(1 - bars[t]) * prediction) / np.sqrt(bars[t])
    mean, _ = oracles.posterior(guess, x_t, bars[t], bars[t - 1])
    true_mean, true_variance = oracles.posterior(x0, x_t, bars[t], bars[t - 1])
    lowest = oracles.posterior(0.0, 0.0, bars[max(t, 2)], bars[max(t, 2) - 1])[1]
    beta = 1 - bars[t] / bars[t - 1]
    share = (v + 1) / 2
    variance = np.exp(share * np.log(beta) + (1 - share) * np.log(lowest))
    if t == 1:
      above = norm.cdf(np.where(x0 > 0.999, np.inf, x0 + 1 / 255), mean, np.sqrt(variance))
      below = norm.cdf(np.where(x0 < -0.999, -np.inf, x0 - 1 / 255), mean, np.sqrt(variance))
      nats = -np.log(above - below)
    else:
      ratio = true_variance / variance
      nats = (ratio - 1 - np.log(ratio) + (true_mean - mean) ** 2 / variance) / 2
    bound = 1000 * np.mean(nats) / np.log(2)  # bits per dimension; T terms
    found.append(np.mean((prediction - noise) ** 2) + 1e-3 * bound)
  return np.array(found)


def test_it_is_the_papers():
  losses = training.hybrid_losses(network, SCHEDULE)
  got = jax.jit(losses)(PARAMS, KEYS, jnp.asarray(X0, jnp.float32), None, jnp.asarray(LEVELS))
  np.testing.assert_allclose(got, expected(), rtol=2e-3)


def test_the_bound_teaches_the_variances_alone():
  """No gradient of it reaches the prediction, whatever its weight; and v gets none of L_simple."""
  x0, t = jnp.asarray(X0, jnp.float32), jnp.asarray(LEVELS)

  def gradient(weight):
    losses = training.hybrid_losses(network, SCHEDULE, weight=weight)
    return jax.jit(jax.grad(lambda params: losses(params, KEYS, x0, None, t).mean()))(PARAMS)

  none, little, much = map(gradient, (0.0, 1e-3, 1.0))
  np.testing.assert_allclose([little["a"], much["a"]], none["a"], rtol=1e-5)
  assert none["b"] == 0
  np.testing.assert_allclose(much["b"], 1000 * little["b"], rtol=1e-3)
  assert abs(little["b"]) > 1e-4


def small(scaling=None):
  unet = ddim_jax.UNet(
    channels=4, multipliers=(1,), blocks=1, attention=(), groups=2, in_channels=1, out_channels=2
  )
  found = models.from_network(unet, (4, 4, 1))
  return found if scaling is None else found.replace(scaling=scaling)


@pytest.mark.slow
def test_such_a_network_is_trained(tmp_path):
  """Both halves of its channels move, and it then draws with its own variances."""
  pixels = np.random.default_rng(0).integers(0, 256, (16, 4, 4, 1), np.uint8)
  model = small()
  with jax.numpy_dtype_promotion("standard"):
    trained = fit(
      tmp_path / "run", model, pixels, steps=3, batch_size=8, warmup=0, learning_rate=1e-2, ema=0.0,
      optimizer=optax.adam, sample_every=0, progress=False,
    )  # fmt: skip
  assert trained.step == 3
  kernel = np.asarray(trained.params["conv_out"]["kernel"])
  assert np.abs(kernel).reshape(-1, 2).max(axis=0).min() > 1e-3  # it begins at zero
  assert np.isfinite(trained.sample(2, steps=3, solver="ddpm-learned")).all()
  assert ddim_jax.load(tmp_path / "run").predicts_variance


def test_what_does_not_go_with_it_is_refused():
  with pytest.raises(ValueError, match="weighting must be none for a network that also predicts variances"):
    objective.simple("min_snr", "uniform", False, 0.0)(small())
  with pytest.raises(ValueError, match=r"level_distribution must be uniform for .*got log_normal"):
    objective.simple(None, "log_normal", False, 0.0)(small())
  with pytest.raises(ValueError, match="data must be pictures with limits"):
    objective.simple(None, "uniform", False, 0.0)(small(Scaling("float32", (0.0,), (1.0,), bounded=False)))
  with pytest.raises(ValueError, match="at least 2 levels where variances are learned, got 1"):
    training.hybrid_losses(network, ddim_jax.linear_schedule(1))
