import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ddim_jax

KEYS = jax.random.split(jax.random.key(0), 2)
X0, EPS = (jax.random.normal(key, (3, 4, 4, 1)) for key in KEYS)


class AddNoise(chex.TestCase):
  @chex.variants(with_jit=True, without_jit=True, with_pmap=True)
  def test_equation_4(self):
    schedule = ddim_jax.cosine_schedule(100)
    t = jnp.array([0, 50, 100])
    x_t = self.variant(ddim_jax.add_noise)(schedule, X0, EPS, t)
    alpha_bar = np.asarray(schedule.alpha_bar)[np.asarray(t)][:, None, None, None]
    expected = np.sqrt(alpha_bar) * X0 + np.sqrt(1 - alpha_bar) * EPS
    np.testing.assert_allclose(np.asarray(x_t).reshape(-1, *X0.shape)[0], expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(5,), (5, 2), (5, 7, 3), (2, 3, 4, 4, 1)])
def test_any_rank(shape):
  x0 = jax.random.normal(KEYS[0], shape)
  x_t = ddim_jax.add_noise(ddim_jax.linear_schedule(), x0, x0, 500)
  chex.assert_equal_shape([x0, x_t])


def test_add_noise_refuses_shapes_that_would_broadcast():
  with pytest.raises(ValueError, match="same shape"):
    ddim_jax.add_noise(ddim_jax.linear_schedule(), X0, EPS[:1], 5)
