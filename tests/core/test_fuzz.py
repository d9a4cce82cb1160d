"""Any input of public functions: a clear ValueError or the right, finite value; with and without 64 bits."""

import contextlib
import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ddim_jax
from ddim_jax import data, scaling, timesteps
from ddim_jax.models import build, config
from ddim_jax.seeds import key_of

few = settings(max_examples=25, derandomize=True, deadline=None, database=None)
T = 50
SCHEDULES = [ddim_jax.linear_schedule, ddim_jax.cosine_schedule, ddim_jax.jsd_schedule]
DTYPES = st.sampled_from([jnp.float32, jnp.bfloat16, jnp.float16])
SHAPES = st.sampled_from([(1,), (2,), (2, 3), (3, 2, 2, 1)])
LEVELS = st.one_of(
  st.integers(-3, T + 3), st.floats(-2, T + 2, width=32), st.sampled_from([math.nan, math.inf])
)
ETAS = st.one_of(st.floats(-0.5, 1.5, width=32), st.sampled_from([0.0, 1.0, math.nan, math.inf]))
wide = lambda x: np.asarray(x, np.float64)


@pytest.fixture(
  params=[False, pytest.param(True, marks=pytest.mark.slow)], ids=["x32", "x64"], scope="module", autouse=True
)
def precision(request):
  with jax.enable_x64(request.param) if hasattr(jax, "enable_x64") else contextlib.nullcontext():
    yield


def valid(t):
  return 0 <= t <= T


@few
@given(st.sampled_from(SCHEDULES), LEVELS, LEVELS, ETAS, DTYPES, SHAPES)
def test_a_step_has_the_variance_of_its_level_or_is_refused(schedule, t, s, eta, dtype, shape):
  schedule = schedule(T)
  one, zero = jnp.ones(shape, dtype), jnp.zeros(shape, dtype)
  step = lambda x0, eps, z: ddim_jax.ddim_step(schedule, ddim_jax.Prediction(x0, eps), t, s, eta=eta, z=z)
  if not (valid(t) and valid(s) and 0 <= eta <= 1):
    with pytest.raises(ValueError, match="must be in"):
      step(one, one, one)
    return
  parts = [step(*(one if i == j else zero for j in range(3))) for i in range(3)]
  assert all(part.dtype == dtype and part.shape == shape for part in parts)
  total = sum(wide(part) ** 2 for part in parts)  # of data and noises with unit variance
  np.testing.assert_allclose(total, 1, atol=8 * float(jnp.finfo(dtype).eps))


@few
@given(
  st.sampled_from([ddim_jax.X0, ddim_jax.V, ddim_jax.FLOW, ddim_jax.EDM]),
  st.integers(1, T),
  DTYPES,
  st.integers(0, 99),
)
def test_what_is_decoded_is_what_was_encoded(parameterisation, t, dtype, seed):
  schedule = SCHEDULES[0](T)
  x0, eps = (jax.random.normal(key, (2, 4), jnp.float32) for key in jax.random.split(key_of(seed)))
  x_t = ddim_jax.add_noise(schedule, x0, eps, t)
  alpha, sigma = schedule.alpha[t].astype(jnp.float32), schedule.sigma[t].astype(jnp.float32)
  target = parameterisation.target(x0, eps, alpha, sigma).astype(dtype)
  got = ddim_jax.as_denoiser(lambda x, t: target, schedule, parameterisation)(x_t.astype(dtype), t)
  size = 16 * float(jnp.finfo(dtype).eps) / float(jnp.minimum(sigma, 1))
  np.testing.assert_allclose(wide(got.x0), wide(x0), atol=4 * size)
  np.testing.assert_allclose(wide(got.eps), wide(eps), atol=4 * size / float(sigma))


@few
@given(
  DTYPES,
  st.floats(0, 1, width=16),
  st.sampled_from([1e-3, 1.0, 10.0]),
  st.sampled_from(["same", "opposite", "near", "other", "zero"]),
)
def test_a_great_circle_keeps_the_norm(dtype, w, scale, kind):
  a, other = (jax.random.normal(key, (2, 8)).astype(dtype) for key in jax.random.split(key_of(1)))
  a = a * jnp.asarray(scale, dtype)
  b = {"same": a, "opposite": -a, "near": a * jnp.asarray(1.01, dtype), "zero": a * 0, "other": other}[kind]
  got = ddim_jax.slerp(a, b, w)
  norms = [np.linalg.norm(wide(x), axis=1) for x in (a, b, got)]
  slack = 8 * float(jnp.finfo(dtype).eps)
  assert got.dtype == dtype
  assert np.all(norms[2] <= np.maximum(norms[0], norms[1]) * 1.5 * (1 + slack) + slack)
  if kind == "same":
    np.testing.assert_allclose(wide(got), wide(a), rtol=slack, atol=slack * scale)


@few
@given(
  st.sampled_from(["uniform", "quadratic", "leading", "trailing", "linspace"]),
  st.integers(-2, 60),
  st.integers(-2, 60),
)
def test_levels_decrease_to_0_or_are_refused(name, levels, steps):
  try:
    ts = getattr(timesteps, name)(levels, steps)
  except ValueError as error:
    assert levels < 1 or steps < 1 or steps > levels, error
    return
  assert len(ts) == steps + 1 or name == "quadratic"  # as in the paper's code, where two levels may meet
  assert ts[-1] == 0
  assert np.all(np.diff(ts) < 0)
  assert 0 < ts[0] <= levels


@few
@given(st.integers(0, 2**63 - 1), st.lists(st.integers(0, 2**31 - 1), min_size=3, max_size=3), DTYPES)
def test_an_image_does_not_depend_on_its_batch(seed, numbers, dtype):
  together = ddim_jax.initial_noise(
    ddim_jax.image_keys(key_of(seed), np.array(numbers, np.int32)), (3, 4), dtype
  )
  alone = ddim_jax.initial_noise(
    ddim_jax.image_keys(key_of(seed), np.array(numbers[1:2], np.int32)), (1, 4), dtype
  )
  np.testing.assert_array_equal(wide(together[1]), wide(alone[0]))


@pytest.mark.slow
@few
@given(st.lists(LEVELS, min_size=0, max_size=4), st.booleans())
def test_sampling_is_finite_or_refused(levels, parallel):
  schedule = SCHEDULES[0](T)
  denoise = ddim_jax.as_denoiser(lambda x, t: x / 2, schedule, ddim_jax.V)
  draw = ddim_jax.sample_parallel if parallel else ddim_jax.sample
  try:
    with jax.disable_jit():
      got = draw(key_of(0), denoise, schedule, jnp.ones((2, 3), jnp.float32), levels)[0]
  except ValueError:
    falling = len(levels) > 1 and all(a > b for a, b in itertools.pairwise(levels))
    assert not (falling and all(map(valid, levels)))
    return
  assert np.all(np.isfinite(got))
  assert got.dtype == jnp.float32


@few
@given(st.lists(st.integers(0, 255), min_size=1, max_size=16))
def test_pixels_go_there_and_back(pixels):
  values = np.array(pixels, np.uint8)
  np.testing.assert_array_equal(data.to_uint8(data.from_uint8(values)), values)


NETWORK = {
  "channels": st.integers(-4, 40), "multipliers": st.lists(st.integers(-1, 3), max_size=3).map(tuple),
  "blocks": st.integers(-1, 2), "attention": st.lists(st.integers(-1, 9), max_size=2).map(tuple),
  "groups": st.integers(-1, 9), "dropout": st.floats(allow_nan=True), "label_dropout": st.floats(-1, 2),
  "conditional": st.booleans(), "dtype": st.sampled_from(["float32", "bfloat16", "float8", 32]),
  "conv": st.sampled_from(["auto", "direct", "winograd", "fft"]),
}  # fmt: skip
DIFFUSION = {
  "levels": st.integers(-2, 20), "schedule": st.sampled_from(["linear", "cosine", "jsd", "none"]),
  "predict": st.sampled_from(["eps", "x0", "v", "score"]), "zero_terminal_snr": st.booleans(),
}  # fmt: skip


@pytest.mark.slow
@settings(max_examples=10, derandomize=True, deadline=None, database=None)
@given(st.data())
def test_a_configuration_makes_a_network_or_is_refused_by_name(draw):
  """One option at a time, so that the refusal is of that one."""
  section, table = draw.draw(st.sampled_from([("network", NETWORK), ("diffusion", DIFFUSION)]))
  name = draw.draw(st.sampled_from(sorted(table)))
  tiny = config.Network(channels=8, multipliers=(1, 1), blocks=1, attention=(4,), groups=4)
  kind = tiny if section == "network" else config.Diffusion(levels=10, predict="v")
  changed = dataclasses.replace(kind, **{name: draw.draw(table[name])})
  asked = dataclasses.replace(config.Config(network=tiny), **{section: changed})
  try:
    model = build.from_config(asked, (8, 8, 1))
    shapes = jax.eval_shape(
      lambda p, x: model.adapted.apply(p, x, 1, None), model.template(), jnp.zeros((1, 8, 8, 1), jnp.float32)
    )
  except ValueError as error:
    words = {"predict": "parameterisation", "zero_terminal_snr": "zero"}
    assert any(word in str(error) for word in (name, words.get(name, name), "EPS")), (name, str(error))
    return
  assert shapes.shape == (1, 8, 8, 1)
  assert shapes.dtype == jnp.float32
  assert {leaf.dtype for leaf in jax.tree.leaves(model.template())} == {np.dtype("float32")}


@few
@given(
  DTYPES,
  st.one_of(st.floats(-4, 8, width=16), st.sampled_from([0.0, 1.0, math.nan, math.inf, -math.inf])),
  st.integers(1, T),
)
def test_guidance_is_a_line_through_both_predictions_or_refused(dtype, weight, t):
  schedule = SCHEDULES[0](T)
  x, one, other = (
    jax.random.normal(key, (2, 4), jnp.float32).astype(dtype) for key in jax.random.split(key_of(2), 3)
  )
  conditional, without = (
    ddim_jax.as_denoiser(lambda x, t, out=out: out, schedule, ddim_jax.X0) for out in (one, other)
  )
  if not math.isfinite(weight):
    with pytest.raises(ValueError, match="weight must be finite"):
      ddim_jax.guide(conditional, without, schedule, weight)
    return
  got = ddim_jax.guide(conditional, without, schedule, weight)(x, t)
  size = 64 * float(jnp.finfo(dtype).eps) * (1 + abs(weight))
  np.testing.assert_allclose(wide(got.x0), wide(other) + weight * (wide(one) - wide(other)), atol=size)
  assert {part.dtype for part in got} == {jnp.dtype(dtype)}


@few
@given(st.sampled_from(SCHEDULES), LEVELS, LEVELS, DTYPES)
def test_more_noise_has_the_variance_of_its_level_or_is_refused(schedule, t, s, dtype):
  schedule, one = schedule(T), jnp.ones((2, 3), dtype)
  if not (valid(t) and valid(s)):
    with pytest.raises(ValueError, match="must be in"):
      ddim_jax.renoise(schedule, one, one, t, s)
    return
  kept, added = (wide(ddim_jax.renoise(schedule, a, b, t, s)) for a, b in ((one, 0 * one), (0 * one, one)))
  _, before = ddim_jax.schedules.coefficients(schedule, t, jnp.ones((), jnp.float32))
  _, after = ddim_jax.schedules.coefficients(schedule, s, jnp.ones((), jnp.float32))
  wanted = wide(after) ** 2 if s > t else wide(before) ** 2
  slack = 16 * float(jnp.finfo(dtype).eps)
  np.testing.assert_allclose(kept**2 * wide(before) ** 2 + added**2, np.full((2, 3), wanted), atol=slack)


@few
@given(
  st.sampled_from([timesteps.karras, timesteps.log_snr]), st.sampled_from(SCHEDULES), st.integers(-1, T + 1),
  st.one_of(st.floats(1e-6, 1e18), st.sampled_from([0.0, -1.0, 7.0, math.nan, math.inf])),
)  # fmt: skip
def test_real_levels_decrease_to_0_or_are_refused(spacing, schedule, steps, rho):
  options = {"rho": rho} if spacing is timesteps.karras else {}
  try:
    ts = spacing(schedule(T), steps, **options)
  except ValueError as error:
    assert not 1 <= steps <= T or (options and not 0.1 < rho < 1e12), error
    return
  assert len(ts) == steps + 1
  assert (ts[0], ts[-1]) == (T, 0)
  assert np.all(np.diff(ts) < 0)


@few
@given(st.lists(st.one_of(st.floats(-0.1, 1.1), st.sampled_from([0.0, 1.0, math.nan])), max_size=4))
def test_any_betas_are_a_schedule_or_refused(betas):
  try:
    schedule = ddim_jax.from_betas(betas)
  except ValueError:
    assert not betas or not all(0 < b < 1 for b in betas[:-1]) or not 0 < betas[-1] <= 1
    return
  expected = np.cumprod(1 - np.array(betas))
  np.testing.assert_allclose(schedule.alpha_bar[1:], expected, atol=2e-6)
  assert np.all(np.diff(wide(schedule.log_snr)) <= 0)
  assert np.all(np.isfinite(schedule.log_snr))


@few
@given(
  st.sampled_from(["uint8", "uint16", "int16", "float16", "float32"]),
  st.floats(-70000, 70000, width=32), st.floats(-70000, 70000, width=32), st.integers(0, 99),
)  # fmt: skip
def test_stored_values_go_there_and_back(dtype, low, high, seed):
  try:
    made = scaling.from_limits(low, high, dtype)
  except ValueError:
    assert not low < high
    return
  ends = np.iinfo(dtype) if np.dtype(dtype).kind != "f" else np.finfo(dtype)
  bottom, top = max(low, float(ends.min)), min(high, float(ends.max))
  if bottom >= top:
    return
  values = np.random.default_rng(seed).uniform(bottom, top, (5, 1))
  values = np.clip(np.round(values) if np.dtype(dtype).kind != "f" else values, bottom, top).astype(dtype)
  back = made.to_values(made.to_data(values))
  assert back.dtype == dtype
  rounding = 1e-6 * (abs(low) + abs(high)) + 0.5 * (np.dtype(dtype).kind != "f")
  np.testing.assert_allclose(
    wide(back), wide(values), atol=rounding, rtol=2e-3 if dtype == "float16" else 1e-6
  )


@pytest.mark.slow
@few
@given(st.lists(st.integers(-2, 5), min_size=2, max_size=2), st.sampled_from([np.int32, np.int64, np.uint8]))
def test_labels_are_classes_or_refused(labels, dtype):
  network = ddim_jax.UNet(
    channels=8,
    multipliers=(1,),
    blocks=0,
    attention=(),
    groups=4,
    out_channels=1,
    num_classes=3,
    middle=False,
  )
  given_labels = np.array(labels).astype(dtype)
  x, numbers = jnp.zeros((2, 4, 4, 1), jnp.float32), jnp.asarray(given_labels)
  apply = lambda: jax.eval_shape(lambda: network.init(key_of(0), x, 1, numbers))
  if all(0 <= label <= 3 for label in given_labels.tolist()):
    apply()
    return
  with pytest.raises(ValueError, match=r"labels must be in \[0, 3\]"):
    apply()
