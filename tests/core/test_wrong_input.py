"""What public functions are given in place of what they take: a sentence that names it, at once."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ddim_jax
from ddim_jax import bijective, continuous, inverse_problems, likelihood, metrics, timesteps, training
from ddim_jax.parallel import sample_parallel
from ddim_jax.unet.noisy_classifier import Classifier

LINEAR = ddim_jax.linear_schedule(100)
X, BYTES = jnp.ones((2, 4, 4, 1), jnp.float32), np.full((2, 4, 4, 1), 9, np.uint8)
NETWORK = lambda x, t: x / 2
DENOISE = ddim_jax.as_denoiser(NETWORK, LINEAR, ddim_jax.V)
KEY = jax.random.key(0)
TS = [50, 20, 0]
TINY = {"channels": 8, "multipliers": (1,), "blocks": 1, "attention": (), "groups": 4, "out_channels": 1}


def draw(denoise=DENOISE, **options):
  return ddim_jax.sample(KEY, denoise, LINEAR, X, TS, **options)


def unet(x=X, t=1, keys=None, **options):
  jax.eval_shape(lambda: ddim_jax.UNet(**TINY | options).init(KEY, x, t, keys=keys))


SWAPPED = {
  "add_noise": lambda: ddim_jax.add_noise(X, LINEAR, X, 5),
  "renoise": lambda: ddim_jax.renoise(X, LINEAR, X, 5, 6),
  "ddim_step": lambda: ddim_jax.ddim_step(DENOISE, DENOISE(X, 5), 5, 4),
  "as_denoiser": lambda: ddim_jax.as_denoiser(LINEAR, NETWORK),
  "clip_x0": lambda: ddim_jax.clip_x0(LINEAR, DENOISE),
  "dynamic_threshold": lambda: ddim_jax.dynamic_threshold(LINEAR, DENOISE),
  "guide": lambda: ddim_jax.guide(DENOISE, LINEAR, DENOISE, 2.0),
  "classifier_guide": lambda: ddim_jax.classifier_guide(DENOISE, LINEAR, NETWORK),
  "inpaint": lambda: ddim_jax.inpaint(DENOISE, X > 0, LINEAR, X),
  "invert": lambda: ddim_jax.invert(LINEAR, DENOISE, X, TS),
  "encode_noises": lambda: ddim_jax.encode_noises(KEY, LINEAR, DENOISE, X, TS),
  "bijective": lambda: bijective.encode(LINEAR, DENOISE, X, TS),
  "ode_log_density": lambda: likelihood.ode_log_density(KEY, LINEAR, DENOISE, X, TS),
  "variational_bound": lambda: likelihood.variational_bound(KEY, LINEAR, DENOISE, X, TS),
  "interpolate": lambda: ddim_jax.interpolate(KEY, LINEAR, DENOISE, X, X, TS, [0.5]),
  "sample_parallel": lambda: sample_parallel(KEY, LINEAR, DENOISE, X, TS),
}


@pytest.mark.parametrize("name", SWAPPED)
def test_arguments_in_another_order_are_named(name):
  with pytest.raises(ValueError, match=r"(schedule|known|denoise) must be .*got"):
    SWAPPED[name]()


RAW = {
  "sample": lambda network: draw(network),
  "sample_parallel": lambda network: sample_parallel(KEY, network, LINEAR, X, TS),
  "invert": lambda network: ddim_jax.invert(network, LINEAR, X, TS),
  "clip_x0": lambda network: ddim_jax.clip_x0(network, LINEAR)(X, 5),
  "guide": lambda network: ddim_jax.guide(DENOISE, network, LINEAR, 2.0)(X, 5),
  "inpaint": lambda network: ddim_jax.inpaint(network, X > 0, X, LINEAR)(X, 5),
  "encode_noises": lambda network: ddim_jax.encode_noises(KEY, network, LINEAR, X, TS),
  "bijective": lambda network: bijective.encode(network, LINEAR, X, TS),
  "heun": lambda network: draw(network, solver=ddim_jax.heun()),
  "likelihood": lambda network: likelihood.variational_bound(KEY, network, LINEAR, X, TS),
}


@pytest.mark.parametrize("name", RAW)
def test_a_network_is_no_denoiser(name):
  """A function that returns an array, as networks do, or a tuple with a variance."""
  with pytest.raises(ValueError, match=r"denoise must return a Prediction, got an array; .*as_denoiser"):
    RAW[name](NETWORK)
  with pytest.raises(ValueError, match="denoise must return a Prediction, got tuple"):
    RAW[name](lambda x, t: (x, x, x))


VALUES = [
  (lambda: ddim_jax.as_denoiser(ddim_jax.UNet(**TINY), LINEAR), "network must be a function .*got UNet"),
  (lambda: ddim_jax.as_denoiser("unet", LINEAR), "network must be a function .*got str"),
  (lambda: ddim_jax.slerp(X, X, 1.5), r"w must be in \[0, 1\], got 1\.5"),
  (lambda: ddim_jax.slerp(X, X, np.nan), r"w must be in \[0, 1\], got nan"),
  (lambda: ddim_jax.slerp(X, X, np.zeros(3)), "w must be a number or one for each of 2 examples"),
  (lambda: ddim_jax.interpolate(KEY, DENOISE, LINEAR, X, X, TS, [0, -0.1]), r"weights must be in \[0, 1\]"),
  (lambda: ddim_jax.interpolate(KEY, DENOISE, LINEAR, X, X, TS, 0.5), "weights must be a vector"),
  (lambda: draw(count=3), r"count must be in \[0, 2\], got 3"),
  (lambda: draw(count=-1), r"count must be in \[0, 2\], got -1"),
  (lambda: draw(count=1.5), "count must be an integer, got 1.5"),
  (
    lambda: sample_parallel(KEY, DENOISE, LINEAR, X, TS, tolerance=-1),
    "tolerance must be at least 0, got -1",
  ),
  (lambda: sample_parallel(KEY, DENOISE, LINEAR, X, TS, tolerance=np.nan), "tolerance must .*nan"),
  (lambda: sample_parallel(KEY, DENOISE, LINEAR, X, TS, window=1.5), "window must be an integer, got 1.5"),
  (lambda: sample_parallel(KEY, DENOISE, LINEAR, X, TS, window=3), r"window must be in \[1, 2\], got 3"),
  (lambda: sample_parallel(KEY, DENOISE, LINEAR, X, [20, 50, 0]), "ts must decrease strictly"),
  (lambda: ddim_jax.invert(DENOISE, LINEAR, X, TS, refine=1.5), "refine must be an integer, got 1.5"),
  (lambda: ddim_jax.invert(DENOISE, LINEAR, X, TS, damping=0), "damping must be positive, got 0"),
  (lambda: ddim_jax.invert(DENOISE, LINEAR, X, TS, tolerance=-1.0), r"tolerance must be at least 0"),
  (lambda: ddim_jax.invert(DENOISE, LINEAR, X, TS, solver=ddim_jax.ddim), "got ddim; call it"),
  (lambda: ddim_jax.guide(DENOISE, DENOISE, LINEAR, np.nan), "weight must be finite, got nan"),
  (lambda: ddim_jax.guide(DENOISE, DENOISE, LINEAR, "2"), "weight must be a number, got '2'"),
  (lambda: ddim_jax.guide(DENOISE, DENOISE, LINEAR, 2, rescale=1.5), r"rescale must be in \[0, 1\]"),
  (lambda: ddim_jax.guide(DENOISE, DENOISE, LINEAR, 2, (3, -3)), "interval must be .*low at most high"),
  (lambda: ddim_jax.classifier_guide(DENOISE, NETWORK, LINEAR, np.inf), "weight must be finite, got inf"),
  (lambda: ddim_jax.image_keys(KEY, [-1]), r"indices must be in \[0, 2,147,483,647\], got -1"),
  (lambda: ddim_jax.image_keys(KEY, np.array([2**32 + 1])), "indices must be in .*got 4294967297"),
  (lambda: ddim_jax.image_keys(KEY, [0.5]), "indices must be integers, got float64"),
  (lambda: ddim_jax.super_resolution(1.5), "factor must be an integer, got 1.5"),
  (lambda: ddim_jax.super_resolution(0), "factor must be at least 1, got 0"),
  (lambda: ddim_jax.colourisation((np.inf, 0.0)), "weights must be finite and not all 0"),
  (lambda: likelihood.hutchinson(0), "probes must be at least 1, got 0"),
  (
    lambda: likelihood.variational_bound(KEY, DENOISE, LINEAR, X, TS, share=2.0),
    r"share must be in \[0, 1\]",
  ),
  (lambda: ddim_jax.cosine_schedule(10, offset=np.nan), "offset must be at least 0 and finite, got nan"),
  (lambda: ddim_jax.exponential_schedule(10, rate=-1), "rate must be positive and finite, got -1"),
  (lambda: timesteps.karras(LINEAR, 10, rho=np.inf), "rho must be positive and finite, got inf"),
  (lambda: timesteps.karras(LINEAR, 10, rho=1e-4), "rho must leave levels that can be told apart"),
  (lambda: timesteps.karras(LINEAR, 10, rho=1e17), "rho must leave levels that can be told apart"),
  (lambda: ddim_jax.edm_schedule(10, rho=1e-3), r"rho must leave levels that can be told apart, got 0\.001"),
  (lambda: ddim_jax.edm_input(LINEAR, X, 5, 0.0), "sigma_data must be positive, got 0"),
  (lambda: continuous.edm_weight(-1.0), "sigma_data must be positive"),
  (lambda: continuous.log_normal_levels(LINEAR, np.nan), "mean must be finite, got nan"),
  (lambda: training.uniform_levels(0), "T must be a positive integer, got 0"),
  (lambda: training.antithetic_levels(2.5), "T must be a positive integer, got 2.5"),
  (lambda: training.warmed_up(optax.adam, clip=-1.0), "clip must be positive, got -1.0"),
  (lambda: training.warmed_up(optax.adam, np.nan, 0), "learning_rate must be finite, got nan"),
  (lambda: training.cosine_rate(-1.0, 2, steps=9), "learning_rate must be positive, got -1.0"),
  (lambda: training.inverse_sqrt_rate(0.1, -5), "warmup must be at least 0, got -5"),
  (lambda: training.min_snr(0.0), "gamma must be positive, got 0"),
  (lambda: training.p2(k=-1), "k must be positive, got -1"),
  (lambda: training.warm_decay(2.0), r"decay must be in \[0, 1\), got 2\.0"),
  (lambda: training.constant_decay(np.nan), "decay must be .*nan"),
  (lambda: unet(channels=8.0), r"channels must be an integer, got 8\.0"),
  (lambda: unet(attention=(2.5,)), r"attention must be an integer, got \(2\.5,\)"),
  (lambda: unet(multipliers=(1, -1)), "multipliers must be positive, got -1"),
  (lambda: unet(multipliers=(np.nan,)), "multipliers must be finite, got nan"),
  (lambda: unet(eps=0.0), "eps must be positive, got 0.0"),
  (lambda: unet(dropout=np.nan), "dropout must be finite, got nan"),
  (lambda: unet(num_classes=2.5), "num_classes must be an integer, got 2.5"),
  (lambda: unet(dtype=jnp.int32), "dtype must be floating point, got .*int32"),
  (lambda: unet(dtype="float7"), "dtype must be floating point, got 'float7'"),
  (lambda: unet(t=0), "t must be at least 1, got 0"),
  (lambda: unet(t=np.nan), "t must be at least 1, got nan"),
  (lambda: unet(t=True), "t must be a number, got True"),
  (lambda: unet(keys=np.zeros((2, 2))), r"key must be a key of jax.random.key .*got float64\(2, 2\)"),
]


@pytest.mark.parametrize(("make", "message"), VALUES, ids=lambda case: case if isinstance(case, str) else "")
def test_values_out_of_range_are_named(make, message):
  with pytest.raises(ValueError, match=message):
    make()


IN_RANGE = {
  "ddim": lambda value: ddim_jax.ddim(value),
  "ddim_step": lambda value: ddim_jax.ddim_step(LINEAR, DENOISE(X, 5), 5, 4, eta=value, z=X),
  "dpm_solver_pp": lambda value: ddim_jax.dpm_solver_pp(2, eta=value),
  "encode_noises": lambda value: ddim_jax.encode_noises(KEY, DENOISE, LINEAR, X, TS, eta=value),
  "ancestral": lambda value: ddim_jax.ancestral(ddim_jax.ddim(), value),
  "churn": lambda value: ddim_jax.heun(churn=value),
  "inflation": lambda value: ddim_jax.heun(churn=0.1, inflation=value),
  "interval of heun": lambda value: ddim_jax.heun(churn=0.1, interval=(value, 1.0)),
  "tau": lambda value: ddim_jax.sa_solver(value),
  "low": lambda value: ddim_jax.clip_x0(DENOISE, LINEAR, value, 1.0),
  "high": lambda value: ddim_jax.clip_x0(DENOISE, LINEAR, -1.0, value),
  "quantile": lambda value: ddim_jax.dynamic_threshold(DENOISE, LINEAR, value),
  "maximum": lambda value: ddim_jax.dynamic_threshold(DENOISE, LINEAR, 0.9, value),
  "weight": lambda value: ddim_jax.guide(DENOISE, DENOISE, LINEAR, value),
  "rescale": lambda value: ddim_jax.guide(DENOISE, DENOISE, LINEAR, 2.0, rescale=value),
  "interval": lambda value: ddim_jax.guide(DENOISE, DENOISE, LINEAR, 2.0, (value, 1.0)),
  "w": lambda value: ddim_jax.slerp(X, X, value),
  "weights": lambda value: ddim_jax.interpolate(KEY, DENOISE, LINEAR, X, X, TS, [value]),
  "ts": lambda value: ddim_jax.sample(KEY, DENOISE, LINEAR, X, [value, 0]),
  "t": lambda value: ddim_jax.add_noise(LINEAR, X, X, value),
  "damping": lambda value: ddim_jax.invert(DENOISE, LINEAR, X, TS, damping=value),
  "tolerance": lambda value: ddim_jax.invert(DENOISE, LINEAR, X, TS, tolerance=value),
  "curvature": lambda value: ddim_jax.dpm_solver_pp(3, curvature=value),
  "rho": lambda value: timesteps.karras(LINEAR, 5, value),
  "strength": lambda value: timesteps.cut(TS, value),
  "beta_start": lambda value: ddim_jax.linear_schedule(10, beta_start=value),
  "beta_end": lambda value: ddim_jax.quadratic_schedule(10, beta_end=value),
  "beta": lambda value: ddim_jax.constant_schedule(10, value),
  "sigmoid": lambda value: ddim_jax.sigmoid_schedule(10, value),
  "fraction": lambda value: ddim_jax.warmup_schedule(10, fraction=value),
  "offset": lambda value: ddim_jax.cosine_schedule(10, value),
  "max_beta": lambda value: ddim_jax.laplace_schedule(10, value),
  "rate": lambda value: ddim_jax.exponential_schedule(10, value),
  "shift": lambda value: ddim_jax.flow_schedule(10, value),
  "sigma_max": lambda value: ddim_jax.edm_schedule(10, sigma_max=value),
  "learning_rate": lambda value: training.warm_rate(value, 5),
  "clip": lambda value: training.warmed_up(optax.adam, 0.1, 0, value),
  "lambda": lambda value: training.hybrid_losses(NETWORK, LINEAR, weight=value),
}


@pytest.mark.parametrize("value", ["0.5", "x", None, 0.5j, b"1", 10**40, np.nan, [[0.1], [0.2]]], ids=repr)
@pytest.mark.parametrize("name", IN_RANGE)
def test_what_is_no_number_is_named(name, value):
  """Neither a TypeError of numpy nor, for a complex number, a result."""
  if value is None and name in ("churn", "tolerance"):
    return
  if isinstance(value, list) and name not in ("t", "w", "weights", "ddim", "ddim_step", "ancestral"):
    return  # one for each example, where that is allowed
  with pytest.raises(ValueError, match="must"):
    IN_RANGE[name](value)


WHOLE = {
  "T": lambda value: ddim_jax.linear_schedule(value),
  "T of levels": lambda value: timesteps.explicit(value, [5]),
  "S": lambda value: timesteps.uniform(100, value),
  "S of karras": lambda value: timesteps.karras(LINEAR, value),
  "offset": lambda value: timesteps.leading(100, 10, value),
  "length": lambda value: timesteps.pad(TS, value),
  "jump": lambda value: timesteps.repaint(TS, value),
  "repeats": lambda value: timesteps.repaint(TS, 1, value),
  "order": lambda value: ddim_jax.lms(value),
  "count": lambda value: next(metrics.subsets(np.ones(3), value, 2)),
  "seed": lambda value: next(metrics.subsets(np.ones(3), 1, 2, value)),
}


@pytest.mark.parametrize("value", ["5", None, 2.5, np.nan, np.inf, True, -1, 10**40], ids=repr)
@pytest.mark.parametrize("name", WHOLE)
def test_what_is_no_whole_number_is_named(name, value):
  with pytest.raises(ValueError, match="must"):
    WHOLE[name](value)


MADE = {
  "karras": lambda: timesteps.karras(10, LINEAR),
  "log_snr": lambda: timesteps.log_snr(100, 10),
  "ancestral": lambda: ddim_jax.ancestral(ddim_jax.dpm_solver_2),
  "repaint": lambda: ddim_jax.repaint(ddim_jax.ddim),
  "repaint, a name": lambda: ddim_jax.repaint("ddim"),
  "interval": lambda: ddim_jax.guide(DENOISE, DENOISE, LINEAR, 2.0, 3.0),
  "interval of three": lambda: ddim_jax.heun(churn=0.1, interval=(0.0, 1.0, 2.0)),
  "levels": lambda: timesteps.repaint([], 1, 2),
  "one level": lambda: timesteps.cut(5, 0.5),
}


@pytest.mark.parametrize("name", MADE)
def test_what_is_something_else_altogether_is_named(name):
  with pytest.raises(ValueError, match=r"(schedule|solver|interval|ts) must be .*got"):
    MADE[name]()


LABELS = [-1, 3, [0, 3], 1.0, np.nan, True, "a", [0, 1, 2], [[0, 1]], np.uint8(255), np.int64(-3)]


@pytest.mark.parametrize("label", LABELS, ids=repr)
def test_a_class_that_a_classifier_does_not_know_is_refused(label):
  """Past the last it would be NaN, and below 0 one of the others."""
  classify = lambda x, t: jnp.stack([x.sum((1, 2, 3))] * 3, axis=1)
  with pytest.raises(ValueError, match="label must be"):
    ddim_jax.class_log_probability(classify, label)(X, 5)
  for good in (0, np.int64(2), [0, 2], jnp.array([1, 2])):
    np.testing.assert_allclose(
      ddim_jax.class_log_probability(classify, good)(X, 5), -np.log(3) * np.ones(2), rtol=1e-6
    )


@pytest.mark.parametrize("z", [np.ones((3, 1), np.float32), np.ones(3, np.float32), "z", None], ids=repr)
def test_noise_of_another_shape_is_refused(z):
  with pytest.raises(ValueError, match="z must be"):
    ddim_jax.ddim_step(LINEAR, DENOISE(X, 5), 5, 4, eta=1.0, z=z)


NO_DATA = {
  "add_noise": lambda x: ddim_jax.add_noise(LINEAR, x, X, 5),
  "add_noise, eps": lambda x: ddim_jax.add_noise(LINEAR, X, x, 5),
  "renoise": lambda x: ddim_jax.renoise(LINEAR, x, X, 5, 6),
  "ddim_step": lambda x: ddim_jax.ddim_step(LINEAR, ddim_jax.Prediction(x, x), 5, 4),
  "denoiser": lambda x: DENOISE(x, 5),
  "sample": lambda x: ddim_jax.sample(KEY, DENOISE, LINEAR, x, TS),
  "invert": lambda x: ddim_jax.invert(DENOISE, LINEAR, x, TS),
  "slerp": lambda x: ddim_jax.slerp(x, x, 0.5),
  "interpolate": lambda x: ddim_jax.interpolate(KEY, DENOISE, LINEAR, x, x, TS, [0.5]),
  "inpaint": lambda x: ddim_jax.inpaint(DENOISE, X > 0, x, LINEAR),
  "constrain": lambda x: ddim_jax.constrain(DENOISE, x, inverse_problems.masked(X > 0), LINEAR),
  "edm_input": lambda x: ddim_jax.edm_input(LINEAR, x, 5),
  "flow_input": lambda x: ddim_jax.flow_input(LINEAR, x, 5),
  "encode_noises": lambda x: ddim_jax.encode_noises(KEY, DENOISE, LINEAR, x, TS),
  "dequantise": lambda x: likelihood.dequantise(KEY, x),
  "variational_bound": lambda x: likelihood.variational_bound(KEY, DENOISE, LINEAR, x, TS),
  "UNet": lambda x: unet(x=x),
  "Classifier": lambda x: jax.eval_shape(lambda: Classifier(2, channels=8, groups=4).init(KEY, x, 1)),
}


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, bool, np.complex64])
@pytest.mark.parametrize("name", NO_DATA)
def test_pictures_that_were_not_scaled_are_no_data(name, dtype):
  """Bytes in [0, 255] are of another scale than data in [-1, 1]; a result would look like one."""
  with pytest.raises(ValueError, match=r"float"):
    NO_DATA[name](jnp.asarray(BYTES, dtype))


@pytest.mark.slow
def test_numbers_of_numpy_and_of_arrays_pass_wherever_those_of_python_do():
  expected = draw(count=2)[0]
  np.testing.assert_array_equal(draw(count=np.int64(2))[0], expected)
  np.testing.assert_array_equal(draw(count=jnp.int32(2))[0], expected)
  for half in (np.float64(0.5), jnp.float32(0.5), np.array([0.5, 0.5])):
    np.testing.assert_allclose(ddim_jax.slerp(X, -2 * X, half), ddim_jax.slerp(X, -2 * X, 0.5), rtol=1e-6)
    ddim_jax.guide(DENOISE, DENOISE, LINEAR, half, rescale=half)
  assert ddim_jax.super_resolution(np.int64(2)).apply(X).shape == (2, 2, 2, 1)
  ddim_jax.image_keys(KEY, np.array([0, 2**31 - 1], np.uint32))
  unet(channels=np.int64(8), t=np.float64(1.5), dtype="bfloat16", keys=jax.random.split(KEY, 2))
  unet(keys=np.zeros((2, 2), np.uint32))
