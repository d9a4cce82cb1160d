import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ddim_jax
from ddim_jax.schedules import coefficients

SCHEDULE = ddim_jax.linear_schedule()
X = 3 * jax.random.normal(jax.random.key(0), (4, 5, 5, 2), jnp.float32)
A = ddim_jax.as_denoiser(lambda x, t: 0.3 * x + 0.1, SCHEDULE)
B = ddim_jax.as_denoiser(lambda x, t: -0.2 * x, SCHEDULE, ddim_jax.V)


def consistent(denoise, t, x=X):
  alpha, sigma = coefficients(SCHEDULE, t, x)
  x0, eps = denoise(x, t)
  np.testing.assert_allclose(alpha * x0 + sigma * eps, x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("t", [1, 300, 1000])
@pytest.mark.parametrize(
  "wrap",
  [
    lambda: A,
    lambda: B,
    lambda: ddim_jax.clip_x0(A, SCHEDULE),
    lambda: ddim_jax.dynamic_threshold(A, SCHEDULE),
    lambda: ddim_jax.guide(A, B, SCHEDULE, 3.0),
    lambda: ddim_jax.guide(A, B, SCHEDULE, jnp.arange(4.0)),
    lambda: ddim_jax.clip_x0(ddim_jax.guide(A, B, SCHEDULE, 3.0), SCHEDULE),
  ],
)
def test_x0_and_eps_fit_together(wrap, t):
  consistent(wrap(), t)
  consistent(wrap(), jnp.array([t, 1, 1000, 7]))


def test_clip_x0():
  raw, clipped = A(X, 500).x0, ddim_jax.clip_x0(A, SCHEDULE, -0.5, 0.7)(X, 500).x0
  np.testing.assert_array_equal(clipped, np.clip(raw, -0.5, 0.7))
  assert np.any(raw != clipped)


@pytest.mark.parametrize(("quantile", "maximum"), [(0.995, 1.5), (0.9, 100.0), (0.5, 1.0)])
def test_dynamic_threshold_equals_diffusers(quantile, maximum):
  diffusers, torch = pytest.importorskip("diffusers"), pytest.importorskip("torch")
  theirs = diffusers.DDIMScheduler(
    thresholding=True, dynamic_thresholding_ratio=quantile, sample_max_value=maximum
  )
  raw = np.array(A(X, 700).x0)
  expected = theirs._threshold_sample(torch.from_numpy(raw)).numpy()
  ours = ddim_jax.dynamic_threshold(A, SCHEDULE, quantile, maximum)(X, 700).x0
  np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)


def test_guide_is_affine_in_its_weight():
  at = lambda w: ddim_jax.guide(A, B, SCHEDULE, w)(X, 400)
  chex.assert_trees_all_close(at(0.0), B(X, 400), atol=1e-5)
  chex.assert_trees_all_close(at(1.0), A(X, 400), atol=1e-5)
  expected = jax.tree.map(lambda c, u: u + 2.5 * (c - u), A(X, 400), B(X, 400))
  chex.assert_trees_all_close(at(2.5), expected, rtol=1e-5)


def test_guide_acts_within_its_interval_only():
  log_snr = float(SCHEDULE.log_snr[400])
  inside = ddim_jax.guide(A, B, SCHEDULE, 2.0, (log_snr - 1, log_snr + 1))(X, 400)
  outside = ddim_jax.guide(A, B, SCHEDULE, 2.0, (log_snr + 1, 80.0))(X, 400)
  chex.assert_trees_all_close(inside, ddim_jax.guide(A, B, SCHEDULE, 2.0)(X, 400))
  chex.assert_trees_all_close(outside, A(X, 400), atol=1e-5)


def test_refuses_an_output_of_another_shape():
  denoise = ddim_jax.as_denoiser(lambda x, t: jnp.concatenate([x, x], -1), SCHEDULE)
  with pytest.raises(ValueError, match=r"must return the shape of x_t, \(4, 5, 5, 2\), got \(4, 5, 5, 4\)"):
    denoise(X, 5)


def test_a_bfloat16_network_gives_float32_predictions():
  denoise = ddim_jax.as_denoiser(lambda x, t: x.astype(jnp.bfloat16), SCHEDULE)
  chex.assert_type(jax.tree.leaves(denoise(X, 5)), jnp.float32)
