"""Every scheduler class of diffusers that is read, against itself: whole trajectories with one fixed network.

The network is a smooth random function of what it is given: the sample in the class's own coordinates and its
timestep. Theirs runs in float64 tables and float32 samples, ours in float32. In their coordinates a sample is
ours times ``sqrt(a^2 + s^2)`` with the two coefficients of the path.
"""

import json
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ddim_jax
from ddim_jax import timesteps
from ddim_jax.interop import schedulers
from ddim_jax.interop.scheduler_defaults import DEFAULTS, ELSEWHERE, complete
from tests.helpers import slow_but

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from tests.their_schedulers import brownian, class_of  # noqa: E402

# torch's own, when numpy 2 reads a tensor; diffusers' own about names that it will drop
pytestmark = [
  pytest.mark.filterwarnings("ignore:__array_(_ implementation|wrap__):DeprecationWarning"),
  pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning"),
  pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning"),
]

SHAPE = (3, 1, 4)
LONGEST = 25
RNG = np.random.default_rng(0)
MIX, PHASE = RNG.standard_normal((4, 4)) / 2, RNG.uniform(0, 6, (1, 1, 4))
NOISE = RNG.standard_normal((2 * LONGEST, *SHAPE)).astype(np.float32)
START = RNG.standard_normal(SHAPE).astype(np.float32)
X64 = np.float64


def output(x, time, xp):
  """What the network says, bounded and smooth in the sample and in the timestep."""
  return xp.tanh(x @ xp.asarray(MIX, x.dtype) + xp.sin(time / 200 + xp.asarray(PHASE, x.dtype)))


def theirs_output(x, t):
  return torch.from_numpy(output(x.numpy().astype(X64), float(t), np)).float()


def their_scheduler(name, settings):
  """Their scheduler; its table not yet rounded to float32, where it has one of betas."""
  made = class_of(name)(**settings)
  if hasattr(made, "alphas_cumprod") and not {"use_flow_sigmas", "sigma_max"} & set(settings):
    ours = schedulers.from_scheduler({"_class_name": name} | settings, lambda x, t: x).schedule
    table = 1 / (1 + np.exp(-np.asarray(ours.log_snr, X64)[1:]))
    end = -4 if settings.get("rescale_betas_zero_snr") else None
    np.testing.assert_allclose(table[:end], made.alphas_cumprod.numpy()[:end], rtol=1e-3, atol=1e-7)
    made.alphas_cumprod = torch.from_numpy(table)
  return made


def ratio_to_theirs(name, settings, sigma):
  """How many times larger their sample is than ours at their sigma."""
  if name.startswith("FlowMatch") or settings.get("use_flow_sigmas"):
    return np.hypot(1 - sigma, sigma)
  in_sigma = ("Euler", "Heun", "LMS", "KDPM2", "DPMSolverSDE", "EDM")
  return np.hypot(1, sigma) if name.startswith(in_sigma) else 1.0


def run_theirs(name, settings, S, monkeypatch, made=None):
  """Their sample at the end, in our coordinates."""
  module = class_of(name).__module__
  rows = iter(NOISE)
  if hasattr(__import__(module, fromlist=["x"]), "randn_tensor"):
    monkeypatch.setattr(f"{module}.randn_tensor", lambda *a, **k: torch.from_numpy(next(rows)))
  made = their_scheduler(name, settings) if made is None else made
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    made.set_timesteps(S)
  made.noise_sampler = brownian(rows)
  scale = lambda i: ratio_to_theirs(name, settings, float(made.sigmas[i])) if hasattr(made, "sigmas") else 1.0
  x = torch.from_numpy((START * scale(0)).astype(np.float32))
  for t in made.timesteps:
    scaled = made.scale_model_input(x, t) if hasattr(made, "scale_model_input") else x
    said = theirs_output(scaled, t)
    if settings.get("variance_type") == "learned_range":
      said = torch.cat([said, torch.sin(3 * scaled)], dim=1)
    x = made.step(said, t, x).prev_sample
  return x.numpy() / scale(-1)


def solve(sampling):
  """Ours, the noise of step i being that of row i."""

  def scripted(denoise, schedule, carry, x_t, t, s, z):
    index, inner = carry
    draws = sampling.solver.draws
    z = jnp.asarray(NOISE)[index] if draws == 1 else jnp.asarray(NOISE).reshape(-1, draws, *SHAPE)[index]
    x_s, inner, prediction = sampling.solver.step(denoise, schedule, inner, x_t, t, s, z)
    return x_s, (index + 1, inner), prediction

  known = ddim_jax.Solver(lambda x: (jnp.int32(0), sampling.solver.init(x)), scripted)

  def network(x_t, t):
    x, level = sampling.inputs(sampling.schedule, x_t, t)
    return output(x, jnp.asarray(level, x.dtype) - 1, jnp)

  denoise = ddim_jax.as_denoiser(network, sampling.schedule, sampling.parameterisation)
  denoise = sampling.restrict(denoise, sampling.schedule)
  return lambda ts, count: ddim_jax.sample(
    jax.random.key(0), denoise, sampling.schedule, jnp.asarray(START), ts, solver=known, count=count
  )[0]


MULTI, SINGLE = "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler"
UNI, DEIS, EULER = "UniPCMultistepScheduler", "DEISMultistepScheduler", "EulerDiscreteScheduler"
FLOW_MATCH = "FlowMatchEulerDiscreteScheduler"
FLOWS = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
PLAIN = {"clip_sample": False}
CONTINUOUS = {
  "timestep_type": "continuous", "prediction_type": "v_prediction", "sigma_min": 0.1, "sigma_max": 50.0,
}  # fmt: skip
ZERO_SNR = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"}
CASES = [
  # As their pipelines have it, each class.
  ("DDIMScheduler", PLAIN),
  ("DDIMParallelScheduler", PLAIN | {"timestep_spacing": "trailing"}),
  ("DDPMScheduler", PLAIN),
  ("DDPMScheduler", PLAIN | {"variance_type": None}),
  ("DDPMScheduler", PLAIN | {"variance_type": "learned_range"}),
  ("DDPMScheduler", PLAIN | {"beta_schedule": "laplace", "variance_type": "fixed_large"}),
  ("DDPMParallelScheduler", {"variance_type": "fixed_small_log", "beta_schedule": "sigmoid"}),
  ("PNDMScheduler", {"skip_prk_steps": True, "steps_offset": 1}),
  ("PNDMScheduler", {}),
  (MULTI, {}),
  (MULTI, {"final_sigmas_type": "sigma_min"}),
  (MULTI, {"final_sigmas_type": "sigma_min", "euler_at_final": True, "solver_order": 3}),
  (MULTI, {"solver_order": 3, "timestep_spacing": "leading", "steps_offset": 1}),
  (MULTI, {"solver_type": "heun", "timestep_spacing": "trailing", "lower_order_final": False}),
  (MULTI, {"use_karras_sigmas": True, "prediction_type": "v_prediction"}),
  (MULTI, {"use_karras_sigmas": True, "beta_schedule": "squaredcos_cap_v2"}),
  (MULTI, {"use_exponential_sigmas": True}),
  (MULTI, {"use_beta_sigmas": True, "final_sigmas_type": "sigma_min"}),
  (MULTI, {"use_lu_lambdas": True, "solver_order": 3}),
  (MULTI, FLOWS | {"flow_shift": 3.0}),
  (MULTI, FLOWS | {"final_sigmas_type": "sigma_min"}),
  (MULTI, {"use_flow_sigmas": True}),
  (MULTI, {"algorithm_type": "sde-dpmsolver++"}),
  (MULTI, {"algorithm_type": "dpmsolver", "solver_type": "heun", "final_sigmas_type": "sigma_min"}),
  (MULTI, {"thresholding": True, "prediction_type": "sample", "lambda_min_clipped": -4.0}),
  (MULTI, ZERO_SNR),
  (SINGLE, {}),
  (SINGLE, {"solver_order": 3}),
  (SINGLE, {"lower_order_final": True, "final_sigmas_type": "sigma_min", "use_karras_sigmas": True}),
  (SINGLE, {"algorithm_type": "sde-dpmsolver++"}),
  (SINGLE, FLOWS),
  (UNI, {}),
  (UNI, {"solver_order": 3}),
  (UNI, {"solver_order": 3, "final_sigmas_type": "sigma_min", "timestep_spacing": "leading"}),
  (UNI, {"final_sigmas_type": "sigma_min"}),
  (UNI, {"use_karras_sigmas": True, "prediction_type": "v_prediction"}),
  (UNI, {"use_beta_sigmas": True}),
  (UNI, {"use_exponential_sigmas": True, "sigma_min": 0.1, "sigma_max": 20.0}),
  (UNI, FLOWS | {"flow_shift": 2.0}),
  (UNI, FLOWS | {"shift_terminal": 0.137}),  # whole timesteps that rounding does not decide
  (DEIS, {}),
  (DEIS, {"solver_order": 3}),
  (DEIS, {"use_karras_sigmas": True, "algorithm_type": "dpmsolver++"}),
  (DEIS, {"use_exponential_sigmas": True, "solver_order": 3}),
  (DEIS, FLOWS),
  ("SASolverScheduler", {}),
  ("SASolverScheduler", {"use_karras_sigmas": True, "prediction_type": "v_prediction"}),
  ("SASolverScheduler", {"lower_order_final": False, "timestep_spacing": "trailing"}),
  ("HeunDiscreteScheduler", {}),
  ("HeunDiscreteScheduler", {"use_karras_sigmas": True, "clip_sample": True, "timestep_spacing": "leading"}),
  ("HeunDiscreteScheduler", {"beta_schedule": "exp", "timestep_spacing": "trailing"}),
  ("HeunDiscreteScheduler", {"use_beta_sigmas": True, "beta_schedule": "scaled_linear"}),
  (EULER, {}),
  (EULER, {"timestep_spacing": "leading", "steps_offset": 1, "beta_schedule": "scaled_linear"}),
  (EULER, {"use_karras_sigmas": True, "final_sigmas_type": "sigma_min"}),
  (EULER, {"use_exponential_sigmas": True, "sigma_min": 0.03, "sigma_max": 100.0}),
  (EULER, {"use_beta_sigmas": True, "interpolation_type": "log_linear"}),
  (EULER, {"timestep_type": "continuous", "prediction_type": "v_prediction", "use_karras_sigmas": True,
           "sigma_min": 0.002, "sigma_max": 700.0}),
  (EULER, {"timestep_type": "continuous", "prediction_type": "v_prediction"}),
  (EULER, CONTINUOUS),  # which are not used without a ramp
  (EULER, CONTINUOUS | {"use_beta_sigmas": True, "final_sigmas_type": "sigma_min"}),
  (EULER, {"use_karras_sigmas": True, "interpolation_type": "log_linear", "timestep_spacing": "leading"}),
  (EULER, {"timestep_type": "continuous", "prediction_type": "v_prediction", "use_exponential_sigmas": True,
           "interpolation_type": "log_linear", "timestep_spacing": "trailing"}),
  (EULER, ZERO_SNR),
  (UNI, ZERO_SNR),
  ("DDIMScheduler", PLAIN | ZERO_SNR),
  ("EulerAncestralDiscreteScheduler", {}),
  ("EulerAncestralDiscreteScheduler", {"timestep_spacing": "trailing", "prediction_type": "v_prediction"}),
  ("LMSDiscreteScheduler", {}),
  ("LMSDiscreteScheduler", {"use_karras_sigmas": True}),
  ("LMSDiscreteScheduler", {"use_exponential_sigmas": True, "timestep_spacing": "leading"}),
  ("KDPM2DiscreteScheduler", {}),
  ("KDPM2DiscreteScheduler", {"use_exponential_sigmas": True, "timestep_spacing": "trailing"}),
  ("KDPM2AncestralDiscreteScheduler", {}),
  ("KDPM2AncestralDiscreteScheduler", {"use_beta_sigmas": True, "timestep_spacing": "leading"}),
  ("DPMSolverSDEScheduler", {}),
  ("DPMSolverSDEScheduler", {"use_karras_sigmas": True, "prediction_type": "v_prediction"}),
  ("DPMSolverSDEScheduler", {"use_exponential_sigmas": True, "timestep_spacing": "trailing"}),
  ("DPMSolverSDEScheduler", {"use_beta_sigmas": True, "timestep_spacing": "leading", "steps_offset": 1}),
  ("EDMEulerScheduler", {"sigma_data": 1.0, "final_sigmas_type": "sigma_min"}),
  ("EDMEulerScheduler", {"sigma_schedule": "exponential", "prediction_type": "v_prediction"}),
  ("EDMDPMSolverMultistepScheduler", {}),
  ("EDMDPMSolverMultistepScheduler", {"solver_order": 3, "final_sigmas_type": "sigma_min"}),
  ("EDMDPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "solver_type": "heun"}),
  (FLOW_MATCH, {}),
  (FLOW_MATCH, {"shift": 3.0, "shift_terminal": 0.1}),
  (FLOW_MATCH, {"use_karras_sigmas": True}),
  (FLOW_MATCH, {"use_beta_sigmas": True, "stochastic_sampling": True}),
]  # fmt: skip


FIRST = dict(reversed(CASES))
"""Settings of the first case of every class."""


@pytest.mark.parametrize(
  "case",
  slow_but(lambda case: case[1] is FIRST[case[0]], CASES),
  ids=lambda case: ", ".join([case[0].replace("Scheduler", ""), *case[1]]),
)
def test_trajectories_equal_their_own_class(case, monkeypatch):
  name, settings = case
  sampling = schedulers.from_scheduler({"_class_name": name} | settings, variance=lambda x, t: jnp.sin(3 * x))
  run = jax.jit(solve(sampling))
  worst = []
  for S in (5, 10, 25):
    ts = sampling.timesteps(S)
    expected = run_theirs(name, settings, S, monkeypatch)
    got = np.asarray(run(*timesteps.pad(ts.astype(np.float32), LONGEST)))
    worst.append(np.abs(got - expected).max() / max(1, np.abs(expected).max()))
  assert max(worst) <= 1e-4, worst


@pytest.mark.parametrize(
  ("config", "message"),
  [
    ({"_class_name": "LCMScheduler"}, "_class_name must be one of 'DDIMScheduler'.*got 'LCMScheduler'"),
    ({}, "_class_name.*got None"),
    ({"_class_name": "DDPMScheduler", "variance_type": "learned"}, "variance_type.*'learned'"),
    ({"_class_name": "DDPMScheduler", "variance_type": "learned_range"}, "twice as many channels"),
    ({"_class_name": "DDIMScheduler", "beta_schedule": "laplace"}, "beta_schedule.*laplace"),
    ({"_class_name": "DDIMScheduler", "of_the_future": 1}, "unknown keys.*DDIMScheduler: of_the_future"),
    ({"_class_name": MULTI, "algorithm_type": "sde-dpmsolver"}, "algorithm_type.*'sde-dpmsolver'"),
    ({"_class_name": MULTI, "algorithm_type": "dpmsolver"}, "algorithm_type = 'dpmsolver'.*order 2"),
    ({"_class_name": MULTI, "use_karras_sigmas": True, "use_beta_sigmas": True}, "only one of"),
    (
      {"_class_name": MULTI, "use_flow_sigmas": True, "use_dynamic_shifting": True},
      "use_dynamic_shifting = True",
    ),
    ({"_class_name": MULTI, "prediction_type": "flow_prediction"}, "prediction_type.*flow_prediction"),
    ({"_class_name": MULTI, "final_sigmas_type": "half"}, "final_sigmas_type.*'half'"),
    ({"_class_name": SINGLE, "solver_type": "heun"}, 'solver_type = .heun.*only "midpoint"'),
    ({"_class_name": UNI, "solver_type": "bh1"}, "solver_type.*'bh1'"),
    ({"_class_name": UNI, "predict_x0": False}, "predict_x0 must be True"),
    ({"_class_name": UNI, "disable_corrector": [0]}, r"disable_corrector = \[0\]"),
    ({"_class_name": UNI, "solver_order": 1}, "solver_order must be 2 or 3, got 1"),
    ({"_class_name": EULER, "interpolation_type": "log_linear"}, "interpolation_type"),
    (
      {"_class_name": EULER, "interpolation_type": "cubic", "use_karras_sigmas": True},
      "interpolation_type must be one of 'linear', 'log_linear', got 'cubic'",
    ),
    (
      {"_class_name": EULER, "use_karras_sigmas": True, "final_sigmas_type": "sigma_min"}
      | CONTINUOUS
      | {"sigma_min": 0.002},
      "final_sigmas_type = 'sigma_min' .* it would rise again, to the betas' 0.01",
    ),
    (
      {"_class_name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": True},
      "use_dynamic_shifting",
    ),
    ({"_class_name": "FlowMatchEulerDiscreteScheduler", "invert_sigmas": True}, "invert_sigmas"),
    ({"_class_name": "EDMEulerScheduler", "sigma_schedule": "linear"}, "sigma_schedule.*'linear'"),
    (
      {"_class_name": "EDMEulerScheduler", "sigma_min": None},
      "sigma_min of .* must be a number, got None",
    ),
    ({"_class_name": EULER, "beta_start": float("nan")}, "beta_start .*must be a number, got nan"),
    ({"_class_name": "DDIMScheduler", "clip_sample": "false"}, "clip_sample .*must be true or false, got 'f"),
    ({"_class_name": "DDIMScheduler", "set_alpha_to_one": []}, r"set_alpha_to_one .*true or false, got \[\]"),
    ({"_class_name": "DDIMScheduler", "steps_offset": -1}, "offset must be in .*got -1"),
    ({"_class_name": EULER, "beta_schedule": ["linear"]}, r"beta_schedule must be one of .*got \['linear'\]"),
    (
      {"_class_name": EULER, "trained_betas": "x"},
      "betas must be a non-empty vector of finite numbers, got x",
    ),
    ({"_class_name": ["DDIMScheduler"]}, "_class_name must be one of"),
    ({"_class_name": MULTI, "solver_order": "2"}, "solver_order .*must be a number, got '2'"),
  ],
)
def test_refuses_by_the_option_that_cannot_be_expressed(config, message):
  with pytest.raises(ValueError, match=message):
    sampling = schedulers.from_scheduler(config)
    sampling.timesteps(10)


def test_sigmas_beyond_the_schedule_are_refused_when_they_are_asked_for():
  config = {"_class_name": EULER, "use_karras_sigmas": True, "sigma_max": 700.0}
  with pytest.raises(ValueError, match=r"sigma_max must lie within the schedule's .* to 157\.4, got .* 700"):
    schedulers.from_scheduler(config).timesteps(10)


@pytest.mark.parametrize(
  ("name", "settings", "foreign"),
  [
    (
      "DDIMScheduler",
      PLAIN,
      {"variance_type": "learned_range", "use_karras_sigmas": True, "skip_prk_steps": True},
    ),
    ("DDPMScheduler", PLAIN, {"set_alpha_to_one": False, "solver_order": 3, "steps_offset": 0}),
    (EULER, {}, {"clip_sample": True, "set_alpha_to_one": False, "solver_type": "bh1"}),
  ],
)
def test_what_their_class_ignores_is_ignored(name, settings, foreign, monkeypatch):
  """A pipeline that was opened with another scheduler and saved carries settings of both."""
  config = {"_class_name": name} | settings
  made = getattr(diffusers, name).from_config(config | foreign)
  expected = run_theirs(name, settings, 5, monkeypatch, getattr(diffusers, name)(**settings))
  np.testing.assert_array_equal(run_theirs(name, settings, 5, monkeypatch, made), expected)
  plain, mixed = schedulers.from_scheduler(config), schedulers.from_scheduler(dict(made.config))
  assert {**plain.config, **config} == {key: mixed.config[key] for key in plain.config}
  for one in (plain, mixed):
    got = jax.jit(solve(one))(*timesteps.pad(one.timesteps(5), LONGEST))
    np.testing.assert_allclose(got, expected, atol=5e-4)  # their float32 tables


OTHERS = [
  *("DDPMScheduler", "PNDMScheduler", EULER, MULTI, UNI, "EDMEulerScheduler", FLOW_MATCH, "LCMScheduler"),
  *("CMStochasticIterativeScheduler", "TCDScheduler", "ScoreSdeVeScheduler", "UnCLIPScheduler"),
]
"""Classes that differ in what they know; some are not read themselves."""


@pytest.mark.parametrize("name", DEFAULTS)
def test_a_file_saved_over_one_of_another_class_means_what_their_class_reads_in_it(name):
  """``Name.from_config(other.config)``, as when a pipeline gets another scheduler, and saved."""
  theirs, accepted = class_of(name), 0
  slow = name.startswith(("KDPM2", "DPMSolverSDE"))  # theirs takes seconds to make
  others = OTHERS[:1] if slow else OTHERS
  for other in others:
    file = json.loads(getattr(diffusers, other)().to_json_string())
    try:
      saved = json.loads(theirs.from_config(file | {"prediction_type": "v_prediction"}).to_json_string())
    except (TypeError, ValueError, NotImplementedError):
      continue  # nor does their own class take it
    read = complete(saved, DEFAULTS[name], name, ELSEWHERE)
    assert {key: read[key] for key in DEFAULTS[name] if key in saved} == {
      key: value for key, value in saved.items() if key in DEFAULTS[name]
    }
    accepted += 1
  assert accepted > len(others) // 2


@pytest.mark.parametrize("name", ["DDIMInverseScheduler", "DPMSolverMultistepInverseScheduler"])
def test_an_inverse_scheduler_is_read_as_the_one_that_it_inverts(name):
  config = dict(getattr(diffusers, name)().config)
  inverse = schedulers.from_scheduler(config | {"_class_name": name})
  forward = schedulers.from_scheduler(config | {"_class_name": name.replace("Inverse", "")})
  np.testing.assert_array_equal(inverse.timesteps(10), forward.timesteps(10))
  np.testing.assert_array_equal(inverse.schedule.log_snr, forward.schedule.log_snr)


def test_every_class_is_in_the_trajectories():
  inverse = {"DDIMInverseScheduler", "DPMSolverMultistepInverseScheduler"}
  assert {name for name, _ in CASES} | inverse == set(DEFAULTS)


def test_defaults_are_those_of_the_classes():
  for name, defaults in DEFAULTS.items():
    theirs = {key: value for key, value in class_of(name)().config.items() if key[0] != "_"}
    if "Inverse" in name:  # read as another class
      theirs = {key: value for key, value in theirs.items() if key in defaults}
    shared = theirs if "Inverse" in name else defaults
    assert {key: defaults[key] for key in shared} == {key: theirs.get(key) for key in shared}, name


def test_flow_matching_to_the_rounding_of_float32(monkeypatch):
  """Ours in float64; theirs keeps its samples in float32."""
  expected = run_theirs(FLOW_MATCH, {}, 25, monkeypatch)
  with jax.enable_x64(True):
    sampling = schedulers.from_scheduler({"_class_name": FLOW_MATCH})

    def network(x_t, t):
      x, level = sampling.inputs(sampling.schedule, x_t, t)
      return output(x, level - 1, jnp)

    denoise = ddim_jax.as_denoiser(network, sampling.schedule, sampling.parameterisation)
    x_T, ts = jnp.asarray(START.astype(X64)), sampling.timesteps(25)
    got = ddim_jax.sample(jax.random.key(0), denoise, sampling.schedule, x_T, ts)[0]
  np.testing.assert_allclose(got, expected, atol=1e-6)
