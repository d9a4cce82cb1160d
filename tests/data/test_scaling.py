import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddim_jax import data, scaling

LIMITS = {
  "uint8": [(0, 255), (0, 1), (10, 200)],
  "uint16": [(0, 65535), (0, 4095), (1000, 1500)],
  "int16": [(-1024, 3071), (-32768, 32767)],
  "float16": [(0, 1), (-1, 1)],
  "float32": [(0, 1), (-1, 1), (-1e6, 3e6)],
}


@pytest.mark.parametrize(("dtype", "limits"), [(d, pair) for d, pairs in LIMITS.items() for pair in pairs])
def test_limits_become_minus_one_and_one_and_all_between_comes_back(dtype, limits):
  low, high = limits
  values = np.linspace(low, high, 70_000 if dtype != "uint8" else 256).astype(dtype)[:, None]
  made = scaling.from_limits(low, high, dtype)
  to_data = jax.jit(made.to_data)(values)
  assert to_data.dtype == jnp.float32
  exact = 2 * (values.astype(np.float64) - low) / (high - low) - 1
  np.testing.assert_allclose(to_data, exact, atol=3e-7)
  back = made.to_values(to_data)
  assert back.dtype == dtype
  if np.dtype(dtype).kind == "f":
    np.testing.assert_allclose(
      back, values, rtol=1e-3 if dtype == "float16" else 1e-6, atol=1e-6 * (high - low)
    )
  else:
    np.testing.assert_array_equal(back, values)
  assert made.to_values(np.array([[-3.0], [3.0]])).tolist() == [[low], [high]]
  assert scaling.Scaling(**json.loads(json.dumps(made._asdict()))) == made


def test_each_channel_may_have_limits_of_its_own():
  made = scaling.from_limits([0, 100, -5], [10, 300, 5], "float32")
  restored = scaling.Scaling(**json.loads(json.dumps(made._asdict())))
  for one in (made, restored):
    for shape in ((3,), (2, 3), (2, 4, 4, 3)):
      values = np.broadcast_to(np.array([0, 200, 5], np.float32), shape)
      np.testing.assert_array_equal(one.to_data(values)[..., :], np.broadcast_to([-1, 0, 1], shape))
      np.testing.assert_array_equal(one.to_values(np.asarray(one.to_data(values))), values)
  with pytest.raises(ValueError, match=r"must have 3 channels \(last axis\), got shape \(2, 4\)"):
    made.to_data(np.zeros((2, 4), np.float32))


def test_standardised_data_have_mean_0_and_variance_1():
  values = np.random.default_rng(0).normal([3, -700], [0.1, 50], (500, 7, 2)).astype(np.float32)
  made = scaling.from_moments((part for part in np.array_split(values, 9)), "float32")
  exact = values.astype(np.float64).reshape(-1, 2)
  np.testing.assert_allclose(made.offset, exact.mean(axis=0), rtol=1e-9)
  np.testing.assert_allclose(made.scale, exact.std(axis=0), rtol=1e-9)
  to_data = np.asarray(made.to_data(values)).reshape(-1, 2)
  np.testing.assert_allclose(to_data.mean(axis=0), 0, atol=1e-4)
  np.testing.assert_allclose(to_data.std(axis=0), 1, atol=1e-4)
  np.testing.assert_allclose(made.to_values(made.to_data(values)), values, rtol=1e-6)
  assert (
    np.max(made.to_values(np.full((1, 2), 9.0))[0] - 9 * np.array(made.scale) - made.offset) < 1e-3
  )  # no clip


@pytest.mark.parametrize(
  ("parts", "message"),
  [
    ([np.full((4, 2), [1.0, 2.0])], "channel 0 is constant"),
    ([np.array([[1.0, np.nan]])], "channel 1 is not"),
  ],
)
def test_what_cannot_be_standardised_is_refused(parts, message):
  with pytest.raises(ValueError, match=message):
    scaling.from_moments(parts, "float32")


@pytest.mark.parametrize("limits", [(1, 1), (2, 1), (0, np.nan), (-np.inf, 0), ([0, 0], [1, 0])])
def test_limits_must_rise(limits):
  with pytest.raises(ValueError, match="low below high"):
    scaling.from_limits(*limits, "float32")


IMAGES = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)


@pytest.mark.parametrize(
  "images", [IMAGES / 255, IMAGES.astype(np.float32), IMAGES.astype(np.int32), IMAGES > 9]
)
def test_only_bytes_are_bytes(images):
  for function in (data.from_uint8, jax.jit(data.from_uint8)):
    with pytest.raises(ValueError, match="must be uint8, got"):
      function(images)


@pytest.mark.parametrize("images", [IMAGES, IMAGES.astype(np.int32), IMAGES > 9, jnp.asarray(IMAGES)])
def test_what_has_bytes_already_is_not_made_bytes(images):
  with pytest.raises(ValueError, match="must be floating point"):
    data.to_uint8(images)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_do_not_become_pictures(number):
  samples = np.zeros((2, 4, 4, 3), np.float32)
  samples[1, 2, 3, 0] = number
  with pytest.raises(ValueError, match="data must be finite, got 1 NaN or infinite of 96 numbers"):
    data.to_uint8(samples)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32, np.float64])
def test_samples_of_any_precision_become_bytes(dtype):
  exact = np.linspace(-1, 1, 256)
  samples = exact.astype(dtype) if dtype is np.float64 else jnp.asarray(exact, dtype)
  rounding = {2: 2**-8, 4: 1e-6, 8: 1e-6}[samples.dtype.itemsize] * 127.5
  assert np.abs(data.to_uint8(samples) - np.arange(256.0)).max() <= 0.5 + rounding
