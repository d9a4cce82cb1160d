"""Half precision and bfloat16: functions are within that type's rounding of float32 with the same input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ddim_jax
from ddim_jax import timesteps, training
from ddim_jax.noise_maps import decode_noises, encode_noises
from tests.helpers import slow_but

TYPES = [jnp.bfloat16, jnp.float16]
KEY = jax.random.key(0)
SCHEDULES = {"linear": ddim_jax.linear_schedule(), "flow": ddim_jax.flow_schedule()}
T, S = np.array([1000, 600, 20], np.float32), np.array([900, 300, 0], np.float32)
SOLVERS = {
  "ddim": ddim_jax.ddim(0.5),
  "ddpm": ddim_jax.ddpm("large"),
  "dpm_solver_pp": ddim_jax.dpm_solver_pp(3),
  "singlestep": ddim_jax.dpm_solver_pp_singlestep(3),
  "dpm_solver_2": ddim_jax.dpm_solver_2(),
  "ancestral": ddim_jax.ancestral(ddim_jax.dpm_solver_pp_2s()),
  "unipc": ddim_jax.unipc(3),
  "deis": ddim_jax.deis(3),
  "lms": ddim_jax.lms(4),
  "heun": ddim_jax.heun(churn=0.1),
  "sa_solver": ddim_jax.sa_solver(0.6),
  "plms": ddim_jax.plms(4),
  "pndm": ddim_jax.pndm(),
}


EACH = slow_but(lambda name: name == "variational", ["simple", "min_snr", "p2", "variational", "hybrid"])


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", EACH)
def test_losses_are_finite_at_every_level(dtype, name):
  """Level 1's weight needs sigma^4, which float16 has not; and squares overflow it."""
  schedule, levels = SCHEDULES["linear"], np.array([1, 2, 500, 1000], np.int32)
  weighting = {"min_snr": training.min_snr(), "p2": training.p2(), "variational": training.variational()}
  network = lambda params, x, t, labels, keys: x / 2 if name != "hybrid" else jnp.concatenate([x, x], -1) / 2
  make = training.hybrid_losses if name == "hybrid" else training.example_losses
  options = {} if name == "hybrid" else {"weighting": weighting.get(name)}
  keys, x0 = jax.random.split(KEY, 4), jnp.linspace(-1, 1, 32, dtype=dtype).reshape(4, 4, 2)
  for size in (1, 300):
    found = make(network, schedule, ddim_jax.V, **options)(keys, keys, x0 * size, None, levels)
    assert found.dtype == jnp.float32
    assert np.all(np.isfinite(found)), (size, found)


@pytest.mark.parametrize("dtype", slow_but(lambda dtype: dtype == jnp.float16, TYPES))
def test_guidance_of_large_samples(dtype):
  """Squares of a few hundred are beyond float16; weights and deviations are not."""
  schedule = SCHEDULES["linear"]
  half, single = pairs(dtype, 3)
  gradient = lambda x, t: -jnp.sum(x.astype(jnp.float32) ** 2, axis=1) / 1000

  def guided(x, one, other):
    of = lambda output: ddim_jax.as_denoiser(lambda x, t: 300 * output, schedule, ddim_jax.X0)
    yield ddim_jax.guide(of(one), of(other), schedule, 2.0, rescale=0.7)(x, 500)
    yield ddim_jax.classifier_guide(of(one), gradient, schedule)(x, 500)

  for got, expected in zip(guided(*half), guided(*single), strict=True):
    for a, b in zip(got, expected, strict=True):
      same(a, b, dtype, 4)


def pairs(dtype, number, shape=(3, 8)):
  """Normal numbers that this type can represent, in it and in float32."""
  drawn = [jax.random.normal(key, shape).astype(dtype) for key in jax.random.split(KEY, number)]
  return drawn, [x.astype(jnp.float32) for x in drawn]


def same(half, single, dtype, factor=4.0):
  """Equal but for a few roundings of the largest values."""
  assert half.dtype == dtype
  size = max(1.0, float(jnp.abs(single).max()))
  np.testing.assert_allclose(
    half.astype(jnp.float32), single, rtol=0, atol=factor * size * jnp.finfo(dtype).eps
  )


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("name", SCHEDULES)
def test_denoisers(dtype, name):
  schedule = SCHEDULES[name]
  half, single = pairs(dtype, 2)
  clip, threshold = (lambda d, f=f: f(d, schedule) for f in (ddim_jax.clip_x0, ddim_jax.dynamic_threshold))
  for parameterisation in (ddim_jax.V, ddim_jax.X0, ddim_jax.EDM, ddim_jax.FLOW):
    for t in (1, 2.5, 400, 1000):
      for wrap in (lambda d: d, clip, threshold):
        denoise = lambda output, wrap=wrap, p=parameterisation: wrap(
          ddim_jax.as_denoiser(lambda x, t: output, schedule, p)
        )
        got, expected = denoise(half[0])(half[1], t), denoise(single[0])(single[1], t)
        for a, b in zip(got, expected, strict=True):
          same(a, b, dtype, 2)
  given, noise = ddim_jax.edm_input(schedule, half[0], 400)
  same(given, ddim_jax.edm_input(schedule, single[0], 400)[0], dtype)
  assert noise.dtype == schedule.log_snr.dtype
  same(
    ddim_jax.flow_input(schedule, half[0], 400)[0], ddim_jax.flow_input(schedule, single[0], 400)[0], dtype
  )


@pytest.mark.parametrize("dtype", slow_but(lambda dtype: dtype == jnp.bfloat16, TYPES))
@pytest.mark.parametrize("name", SOLVERS)
def test_a_step_of_every_solver(dtype, name):
  """From levels without signal, between, and to clean data, one for each example."""
  solver, schedule = SOLVERS[name], SCHEDULES["flow"]
  half, single = pairs(dtype, 2)

  @jax.jit
  def step(x, z):
    denoise = ddim_jax.as_denoiser(lambda x, t: x / 2, schedule, ddim_jax.V)
    return solver.step(denoise, schedule, solver.init(x), x, jnp.asarray(T), jnp.asarray(S), z)[0]

  same(step(*half), step(*single), dtype)


@pytest.mark.parametrize("dtype", TYPES)
def test_sampling_there_and_back(dtype):
  schedule, ts = SCHEDULES["linear"], timesteps.uniform(1000, 5)
  denoise = ddim_jax.as_denoiser(lambda x, t: x / 2, schedule, ddim_jax.V)
  (x,), (wide,) = pairs(dtype, 1)
  sample = jax.jit(lambda x: ddim_jax.sample(KEY, denoise, schedule, x, ts)[0])
  same(sample(x), sample(wide), dtype, 8)
  invert = jax.jit(lambda x: ddim_jax.invert(denoise, schedule, x, ts, refine=3))
  same(invert(x), invert(wide), dtype, 32)
  maps = encode_noises(KEY, denoise, schedule, x, ts)
  same(decode_noises(denoise, schedule, maps, ts), wide, dtype, 8)
