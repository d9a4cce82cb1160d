"""Whole trajectories against the schedulers of diffusers, with one fixed random smooth network.

Their timestep i is our level i + 1. What their settings change from their defaults, and why:

- ``lower_order_final=False``: by default they lower the order of the last two steps when there are fewer
  than 15. Our rule is by level, not by count: the step to level 0 is of order 1. They do that as well.
- UniPC of order 3 would divide by infinity on its way to level 0: both stop at level 1, "sigma_min".
- DEIS of diffusers stops at level 1; so does ours here.
- PNDM ends at level 1 by default (``set_alpha_to_one=False``); here at level 0.
- Order 3 of DPM-Solver++ is theirs with ``curvature=0.5``: see `ddim_jax.dpm_solver_pp`.
- Heun's samples are x / alpha; compared where their second order step is complete.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ddim_jax
from ddim_jax import timesteps
from ddim_jax.schedules import coefficients
from tests import oracles

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

# torch's own, when numpy 2 reads a tensor
pytestmark = pytest.mark.filterwarnings("ignore:__array_(_ implementation|wrap__):DeprecationWarning")

SCHEDULE = ddim_jax.linear_schedule()
ALPHA_BAR = oracles.linear_alpha_bar()
LOG_SNR = np.log(ALPHA_BAR[1:]) - np.log1p(-ALPHA_BAR[1:])
RNG = np.random.default_rng(0)
MIX, PHASE = RNG.standard_normal((4, 4)) / 2, RNG.uniform(0, 6, (1, 4))
SHAPE = (3, 4)
LONGEST = 50


def clean(x, level, xp):
  """Bounded, smooth in the sample and in the level."""
  return xp.tanh(x @ xp.asarray(MIX, x.dtype) + xp.sin(level / 200 + xp.asarray(PHASE, x.dtype)))


def denoise(x, t):
  alpha, sigma = coefficients(SCHEDULE, t, x)
  x0 = clean(x, jnp.asarray(t, x.dtype), jnp)
  return ddim_jax.Prediction(x0, (x - alpha * x0) / sigma)


def eps_of(x, t):
  """The same network for a peer, in float64: torch in, torch out."""
  level = float(t) + 1
  snr = np.exp(np.interp(level, np.arange(1, 1001), LOG_SNR))
  alpha, sigma = (snr / (1 + snr)) ** 0.5, (1 + snr) ** -0.5
  x = x.numpy().astype(np.float64)
  return torch.from_numpy((x - alpha * clean(x, level, np)) / sigma).float()


def start():
  return np.random.default_rng(1).standard_normal(SHAPE).astype(np.float32)


def ours(solver, noise=None):
  """``(ts) -> x_s of every step``, compiled once for every number of steps."""

  def scripted(denoise, schedule, carry, x_t, t, s, z):
    (index, inner) = carry
    x_s, inner, prediction = solver.step(denoise, schedule, inner, x_t, t, s, noise[index])
    return x_s, (index + 1, inner), prediction

  noise = jnp.zeros((LONGEST, *SHAPE)) if noise is None else jnp.asarray(noise)
  known = ddim_jax.Solver(lambda x: (jnp.int32(0), solver.init(x)), scripted)
  run = jax.jit(
    lambda ts, count: ddim_jax.sample(
      jax.random.key(0), denoise, SCHEDULE, jnp.asarray(start()), ts,
      solver=known, count=count, observe=lambda step: step.x_s,
    )[1]
  )  # fmt: skip
  return lambda ts: np.asarray(run(*timesteps.pad(ts, LONGEST)))[: len(ts) - 1]


def theirs(scheduler, S):
  """Their timesteps and the sample after each of their steps."""
  scheduler.set_timesteps(S)
  x, seen = torch.from_numpy(start()), []
  for t in scheduler.timesteps:
    x = scheduler.step(eps_of(x, t), t, x).prev_sample
    seen.append(x.numpy())
  return scheduler.timesteps.numpy(), np.stack(seen)


def make(name, **settings):
  """Their scheduler with the linear schedule, its table not yet rounded to float32."""
  made = getattr(diffusers, name)(beta_start=1e-4, beta_end=0.02, beta_schedule="linear", **settings)
  made.alphas_cumprod = torch.from_numpy(ALPHA_BAR[1:])
  return made


MULTISTEP = {
  "ddim": (ddim_jax.ddim, ("DDIMScheduler", {"timestep_spacing": "trailing", "clip_sample": False}), 0),
  "dpm_solver_pp 1": (
    lambda: ddim_jax.dpm_solver_pp(1),
    ("DPMSolverMultistepScheduler", {"solver_order": 1}),
    0,
  ),
  "dpm_solver_pp 2": (
    lambda: ddim_jax.dpm_solver_pp(2),
    ("DPMSolverMultistepScheduler", {"solver_order": 2, "lower_order_final": False}),
    0,
  ),
  "dpm_solver_pp 3": (
    lambda: ddim_jax.dpm_solver_pp(3, curvature=0.5),
    ("DPMSolverMultistepScheduler", {"solver_order": 3, "lower_order_final": False}),
    0,
  ),
  "unipc 2": (lambda: ddim_jax.unipc(2), ("UniPCMultistepScheduler", {"solver_order": 2}), 0),
  "unipc 3": (
    lambda: ddim_jax.unipc(3),
    (
      "UniPCMultistepScheduler",
      {"solver_order": 3, "lower_order_final": False, "final_sigmas_type": "sigma_min"},
    ),
    1,
  ),
  "deis 1": (lambda: ddim_jax.deis(1), ("DEISMultistepScheduler", {"solver_order": 1}), 1),
  "deis 2": (
    lambda: ddim_jax.deis(2),
    ("DEISMultistepScheduler", {"solver_order": 2, "lower_order_final": False}),
    1,
  ),
  "deis 3": (
    lambda: ddim_jax.deis(3),
    ("DEISMultistepScheduler", {"solver_order": 3, "lower_order_final": False}),
    1,
  ),
}


@pytest.mark.parametrize("name", MULTISTEP)
def test_one_evaluation_a_step(name):
  solver, (scheduler, settings), last = MULTISTEP[name]
  run = ours(solver())
  for S in (10, 20, 50):
    times, expected = theirs(make(scheduler, **settings), S)
    np.testing.assert_allclose(run(np.append(times + 1, last)), expected, atol=1e-4)


def scripted_noise(monkeypatch, *modules):
  """Makes their draws the rows of one array."""
  noise = np.random.default_rng(2).standard_normal((LONGEST, *SHAPE)).astype(np.float32)
  for module in modules:
    rows = iter(noise)
    draw = lambda *args, rows=rows, **kwargs: torch.from_numpy(next(rows))
    monkeypatch.setattr(f"diffusers.schedulers.{module}.randn_tensor", draw)
  return noise


DDPM = {
  "small": ("small", "fixed_small"),
  "large": ("large", "fixed_large"),
  "learned range": (lambda x, t: jnp.sin(3 * x), "learned_range"),
}


@pytest.mark.parametrize("name", DDPM)
def test_ddpm(name, monkeypatch):
  variance, their_type = DDPM[name]
  settings = {"variance_type": their_type, "clip_sample": False, "timestep_spacing": "leading"}
  for S in (10, 20, 50):
    noise = scripted_noise(monkeypatch, "scheduling_ddpm")
    scheduler = make("DDPMScheduler", **settings)
    if their_type == "learned_range":  # the second half of the channels (axis 1 here) is v
      step = scheduler.step
      both = lambda eps, t, x, step=step: step(torch.cat([eps, torch.sin(3 * x)], dim=1), t, x)
      scheduler.step = both
    times, expected = theirs(scheduler, S)
    if S == 10:
      run = ours(ddim_jax.ddpm(variance), noise)
    np.testing.assert_allclose(run(np.append(times + 1, 0)), expected, atol=1e-4)


@pytest.mark.parametrize("order", [1, 2])
def test_the_stochastic_dpm_solver(order, monkeypatch):
  """Their order 3 subtracts 1/2 where its integral adds it; ours is tested in test_solvers_orders."""
  settings = {"algorithm_type": "sde-dpmsolver++", "solver_order": order, "lower_order_final": False}
  noise = scripted_noise(monkeypatch, "scheduling_dpmsolver_multistep")
  run = ours(ddim_jax.dpm_solver_pp(order, eta=1.0), noise)
  for S in (10, 20, 50):
    scripted_noise(monkeypatch, "scheduling_dpmsolver_multistep")
    times, expected = theirs(make("DPMSolverMultistepScheduler", **settings), S)
    np.testing.assert_allclose(run(np.append(times + 1, 0)), expected, atol=1e-4)


@pytest.mark.parametrize("karras", [False, True])
def test_heun(karras):
  run = ours(ddim_jax.heun())
  for S in (10, 20, 50):
    spacing = "linspace" if karras else "trailing"  # Karras's goes from the first to the last of these
    scheduler = make("HeunDiscreteScheduler", timestep_spacing=spacing, use_karras_sigmas=karras)
    scheduler.set_timesteps(S)
    ratio = float(scheduler.sigmas[0])
    to_alpha = lambda sigma: 1 / (1 + float(sigma) ** 2) ** 0.5
    x, seen = torch.from_numpy(start()) / to_alpha(ratio), []
    for i, t in enumerate(scheduler.timesteps):
      model_input = scheduler.scale_model_input(x, t)
      x = scheduler.step(eps_of(model_input, t), t, x).prev_sample
      if i % 2 or i == len(scheduler.timesteps) - 1:
        seen.append(x.numpy() * to_alpha(scheduler.sigmas[i + 1]))
    levels = np.append(scheduler.timesteps.numpy()[::2] + 1.0, 0)
    expected = timesteps.karras(SCHEDULE, S) if karras else timesteps.trailing(1000, S)
    np.testing.assert_allclose(levels, expected, atol=1e-3)
    np.testing.assert_allclose(run(expected), np.stack(seen), atol=1e-4)


def test_plms():
  run = ours(ddim_jax.plms())
  for S in (10, 20, 50):
    settings = {"skip_prk_steps": True, "set_alpha_to_one": True}
    times, expected = theirs(make("PNDMScheduler", **settings), S)
    levels = np.append(np.delete(times, 1) + 1, 0)  # they list the level of Heun's second evaluation
    np.testing.assert_array_equal(levels, timesteps.leading(1000, S))
    np.testing.assert_allclose(run(levels), expected[1:], atol=1e-4)


def test_pndm():
  run = ours(ddim_jax.pndm())
  for S in (10, 20, 50):
    times, expected = theirs(make("PNDMScheduler", set_alpha_to_one=True), S)
    complete = np.r_[3, 7, 11, 12 : len(times)]  # four evaluations in each of three steps, then one
    np.testing.assert_allclose(run(timesteps.leading(1000, S)), expected[complete], atol=1e-4)
