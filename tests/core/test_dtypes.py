"""Public functions with 64 bits on: what goes in as a narrower type comes out as that, within its rounding.

Numbers of numpy are float64 and, unlike those of Python, widen what they meet: arguments are given as such.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ddim_jax
from ddim_jax import bijective, distillation, inverse_problems, likelihood, timesteps

T, T_NOW, S_NOW = 50, np.float64(30), np.float64(10)
TS = np.array([50.0, 30.0, 10.0, 0.0])
HALF, TWO, ONE = np.float64(0.5), np.float64(2), np.float64(1)
SHAPE = (2, 4, 4, 3)
MASK = np.arange(48).reshape(SHAPE[1:]) % 2 == 0


def at(wrap):
  """What a denoiser wrapped around another says of a sample, the second array being known to it."""
  return lambda key, schedule, denoise, x, e: tuple(wrap(denoise, schedule, e)(x, T_NOW))


def other(schedule):
  return ddim_jax.as_denoiser(lambda x, t: x / 3, schedule, ddim_jax.V)


def measured(operator):
  return at(lambda d, s, e: ddim_jax.constrain(d, operator.apply(e), operator, s))


def there_and_back(key, schedule, denoise, x, e):
  maps = ddim_jax.encode_noises(key, denoise, schedule, x, TS, eta=HALF)
  return maps.x_T, ddim_jax.decode_noises(denoise, schedule, maps, TS, eta=HALF)


def exactly_back(key, schedule, denoise, x, e):
  pair = bijective.encode(denoise, schedule, x, TS)
  return pair.x_T, bijective.decode(denoise, schedule, pair, TS)


def bound(key, schedule, denoise, x, e):
  terms = likelihood.variational_bound(key, denoise, schedule, jnp.clip(x / 4, -1, 1), TS)
  return terms.prior, terms.levels


FUNCTIONS = {
  "add_noise": lambda k, s, d, x, e: ddim_jax.add_noise(s, x, e, T_NOW),
  "renoise": lambda k, s, d, x, e: ddim_jax.renoise(s, x, e, S_NOW, T_NOW),
  "ddim_step": lambda k, s, d, x, e: ddim_jax.ddim_step(
    s, ddim_jax.Prediction(x, e), T_NOW, S_NOW, eta=HALF, z=x
  ),
  "slerp": lambda k, s, d, x, e: ddim_jax.slerp(x, e, HALF),
  "interpolate": lambda k, s, d, x, e: ddim_jax.interpolate(k, d, s, x, e, TS, np.array([0.0, 0.3, 1.0])),
  "edm_input": lambda k, s, d, x, e: ddim_jax.edm_input(s, x, T_NOW, HALF)[0],
  "flow_input": lambda k, s, d, x, e: ddim_jax.flow_input(s, x, T_NOW)[0],
  "guide": at(lambda d, s, e: ddim_jax.guide(d, other(s), s, TWO, (-TWO, TWO), rescale=HALF)),
  "classifier_guide": at(
    lambda d, s, e: ddim_jax.classifier_guide(d, lambda x, t: -jnp.sum(x * e, axis=(1, 2, 3)), s, HALF)
  ),
  "clip_x0": at(lambda d, s, e: ddim_jax.clip_x0(d, s, -ONE, ONE)),
  "dynamic_threshold": at(lambda d, s, e: ddim_jax.dynamic_threshold(d, s, HALF, TWO)),
  "inpaint": at(lambda d, s, e: ddim_jax.inpaint(d, MASK, e, s)),
  "masked": measured(ddim_jax.masked(MASK)),
  "super_resolution": measured(ddim_jax.super_resolution(2)),
  "colourisation": measured(ddim_jax.colourisation((np.float64(0.3), HALF, np.float64(0.2)))),
  "compose": measured(inverse_problems.compose(ddim_jax.super_resolution(2), ddim_jax.masked(MASK[:1, :1]))),
  "sample": lambda k, s, d, x, e: ddim_jax.sample(k, d, s, x, TS, solver=ddim_jax.ddim(HALF))[0],
  "ancestral": lambda k, s, d, x, e: ddim_jax.sample(
    k, d, s, x, TS, solver=ddim_jax.ancestral(ddim_jax.dpm_solver_pp_2s(), HALF)
  )[0],
  "heun": lambda k, s, d, x, e: ddim_jax.sample(k, d, s, x, TS, solver=ddim_jax.heun(churn=HALF))[0],
  "multistep": lambda k, s, d, x, e: ddim_jax.sample(k, d, s, x, TS, solver=ddim_jax.dpm_solver_pp(2, HALF))[
    0
  ],
  "sa_solver": lambda k, s, d, x, e: ddim_jax.sample(k, d, s, x, TS, solver=ddim_jax.sa_solver(HALF))[0],
  "repaint": lambda k, s, d, x, e: ddim_jax.sample(
    k, d, s, x, timesteps.repaint(TS, 1, 2), solver=ddim_jax.repaint(ddim_jax.ddim(ONE))
  )[0],
  "sample_parallel": lambda k, s, d, x, e: ddim_jax.sample_parallel(k, d, s, x, TS, tolerance=0 * ONE).x_0,
  "invert": lambda k, s, d, x, e: ddim_jax.invert(d, s, x, TS, refine=1, damping=ONE),
  "noise maps": there_and_back,
  "bijective": exactly_back,
  "distillation": lambda k, s, d, x, e: distillation.target(d, s, x, [T_NOW, S_NOW, 0 * ONE]),
  "ode_log_density": lambda k, s, d, x, e: likelihood.ode_log_density(
    k, d, s, x, TS, divergence=likelihood.hutchinson()
  ),
  "variational_bound": bound,
  "dequantise": lambda k, s, d, x, e: likelihood.dequantise(k, x),
  "bits": lambda k, s, d, x, e: likelihood.bits_per_dimension(x[:, 0, 0, 0], SHAPE, HALF),
}
DRAWS = (
  "sample",
  "ancestral",
  "heun",
  "multistep",
  "sa_solver",
  "repaint",
  "dequantise",
  "noise maps",
  "ode_log_density",
  "variational_bound",
)
"""What draws noise draws other numbers in another type: only the type is looked at."""
WIDE = ("ode_log_density", "variational_bound")
"""Sums over all values of an image, and what belongs to them."""
LOOSE = {"bijective": 256, "invert": 64}


DTYPES = [jnp.float32, jnp.bfloat16, jnp.float16]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_narrower_type_stays_and_is_within_its_rounding_of_float64(name, dtype):
  rng = np.random.default_rng(0)
  with jax.enable_x64(True):
    given = [jnp.asarray(rng.standard_normal(SHAPE), dtype) for _ in range(2)]

    def run(x, e):
      schedule = ddim_jax.linear_schedule(T)
      denoise = ddim_jax.as_denoiser(lambda x, t: x / 2, schedule, ddim_jax.V)
      return jax.tree.leaves(FUNCTIONS[name](jax.random.key(0), schedule, denoise, x, e))

    got, exact = run(*given), run(*(x.astype(jnp.float64) for x in given))
    for a, b in zip(got, exact, strict=True):
      wanted = jnp.float32 if name in WIDE else dtype
      assert (a.dtype, b.dtype, a.shape) == (wanted, jnp.float64, b.shape)
      a, size = np.asarray(a, np.float64), max(1.0, float(jnp.abs(b).max()))
      assert np.all(np.isfinite(a))
      if name not in DRAWS:
        slack = LOOSE.get(name, 16) * float(jnp.finfo(dtype).eps)
        np.testing.assert_allclose(a, b, rtol=0, atol=slack * size)
