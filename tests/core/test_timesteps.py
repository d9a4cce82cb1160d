import numpy as np
import pytest

import ddim_jax
from ddim_jax import timesteps
from tests import oracles

EXACT = [timesteps.uniform, timesteps.leading, timesteps.trailing, timesteps.linspace]


@pytest.mark.parametrize("spacing", EXACT)
@pytest.mark.parametrize("T", [1, 2, 10, 37, 1000])
def test_exactly_S_distinct_steps_down_to_0(spacing, T):
  for S in range(1, T + 1) if T < 100 else (1, 2, 3, 7, 10, 50, 300, 333, 501, 999, 1000):
    ts = spacing(T, S)
    assert ts.dtype == np.int32
    assert ts.shape == (S + 1,)
    assert ts[-1] == 0
    assert ts[0] <= T
    assert np.all(np.diff(ts) < 0)
  np.testing.assert_array_equal(spacing(T, T), np.arange(T, -1, -1))


@pytest.mark.parametrize("S", [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000])
def test_uniform_is_the_papers_where_S_divides_T(S):
  code = np.array(range(0, 1000, 1000 // S))[::-1]
  np.testing.assert_array_equal(timesteps.uniform(1000, S)[:-1], code + 1)


@pytest.mark.parametrize(("S", "distinct"), [(10, 10), (20, 20), (50, 49), (100, 96), (1000, 688)])
def test_quadratic_is_the_papers_without_its_idle_steps(S, distinct):
  code = [int(s) for s in np.linspace(0, np.sqrt(1000 * 0.8), S) ** 2]
  np.testing.assert_array_equal(timesteps.quadratic(1000, S)[:-1][::-1] - 1, sorted(set(code)))
  assert len(timesteps.quadratic(1000, S)) == distinct + 1


def test_quadratic_covers_every_S():
  for T in (1, 2, 10, 1000):
    for S in {1, 2, T // 2 + 1, T} - {0}:
      if S <= T:
        ts = timesteps.quadratic(T, S)
        assert ts[-1] == 0
        assert ts[-2] == 1
        assert np.all(np.diff(ts) < 0)


@pytest.mark.parametrize("S", [1, 2, 7, 10, 20, 50, 300, 1000])
@pytest.mark.parametrize("name", ["leading", "trailing", "linspace"])
def test_equals_diffusers(name, S):
  diffusers = pytest.importorskip("diffusers")
  scheduler = diffusers.DDIMScheduler(timestep_spacing=name)
  scheduler.set_timesteps(S)
  np.testing.assert_array_equal(getattr(timesteps, name)(1000, S)[:-1], scheduler.timesteps.numpy() + 1)


def test_leading_with_offset_equals_diffusers():
  diffusers = pytest.importorskip("diffusers")
  scheduler = diffusers.DDIMScheduler(timestep_spacing="leading", steps_offset=1)
  scheduler.set_timesteps(50)
  np.testing.assert_array_equal(timesteps.leading(1000, 50, 1)[:-1], scheduler.timesteps.numpy() + 1)


def test_explicit_appends_the_clean_level():
  for levels in ([9, 4, 1], [9, 4, 1, 0], np.array([9, 4, 1])):
    np.testing.assert_array_equal(timesteps.explicit(10, levels), [9, 4, 1, 0])


@pytest.mark.parametrize("spacing", [*EXACT, timesteps.quadratic])
@pytest.mark.parametrize("S", [0, -1, 11, 2.0, "3"])
def test_refuses_a_bad_S(spacing, S):
  with pytest.raises(ValueError, match=r"S must be .*" + str(S).replace("-", r"\-")):
    spacing(10, S) if S != 11 else spacing(10, 11)


@pytest.mark.parametrize("levels", [[], [0], [1, 1], [1, 2], [11, 3], [3, -1], [2.5, 1.0], [[3, 1]]])
def test_explicit_refuses(levels):
  with pytest.raises(ValueError, match="levels must"):
    timesteps.explicit(10, levels)


def test_leading_refuses_an_offset_beyond_T():
  with pytest.raises(ValueError, match="at most T = 10"):
    timesteps.leading(10, 10, offset=1)


def half_log_snr(ts):
  """Lambda of the linear schedule at real levels of at least 1."""
  alpha_bar = oracles.linear_alpha_bar()[1:]
  return np.interp(ts, np.arange(1, 1001), np.log(alpha_bar / (1 - alpha_bar)) / 2)


@pytest.mark.parametrize("S", [1, 2, 7, 50, 1000])
def test_real_levels_are_even_in_what_they_say(S):
  schedule = ddim_jax.linear_schedule()
  even = {
    timesteps.log_snr: half_log_snr,
    timesteps.karras: lambda ts: np.exp(-half_log_snr(ts) / 7),
    lambda schedule, S: timesteps.karras(schedule, S, 2.0): lambda ts: np.exp(-half_log_snr(ts) / 2),
  }
  for spacing, measure in even.items():
    ts = spacing(schedule, S)
    assert ts.dtype == np.float64
    assert ts.shape == (S + 1,)
    assert np.all(np.diff(ts) < 0)
    assert ts[0] == 1000
    assert ts[-1] == 0
    assert S == 1 or ts[-2] == 1
    steps = np.diff(measure(ts[:-1]))
    np.testing.assert_allclose(steps, np.mean(steps) if S > 1 else [], rtol=1e-3)


def test_karras_and_log_snr_equal_diffusers_before_it_rounds():
  diffusers = pytest.importorskip("diffusers")
  schedule = ddim_jax.linear_schedule()
  for option, spacing in (("use_karras_sigmas", timesteps.karras), ("use_lu_lambdas", timesteps.log_snr)):
    settings = {"beta_start": 1e-4, "beta_end": 0.02, option: True}
    scheduler = diffusers.DPMSolverMultistepScheduler(**settings)
    with pytest.warns(DeprecationWarning, match="__array__"):  # torch's, when numpy 2 reads a tensor
      scheduler.set_timesteps(20)
    ratios = np.exp(-half_log_snr(spacing(schedule, 20)[:-1]))
    np.testing.assert_allclose(ratios, scheduler.sigmas.numpy()[:-1], rtol=2e-4)


def test_pad_repeats_the_last_level():
  ts, count = timesteps.pad(timesteps.uniform(10, 3), 5)
  np.testing.assert_array_equal(ts, [*timesteps.uniform(10, 3), 0, 0])
  assert count == 3
  whole, all_of_them = timesteps.pad([3.5, 0.0], 1)
  np.testing.assert_array_equal(whole, [3.5, 0.0])
  assert all_of_them == 1


def test_the_others_refuse():
  schedule = ddim_jax.linear_schedule(10)
  for spacing in (timesteps.log_snr, timesteps.karras):
    with pytest.raises(ValueError, match="S must be a positive integer, got 0"):
      spacing(schedule, 0)
    with pytest.raises(ValueError, match="asked for 11 steps out of 10 levels"):
      spacing(schedule, 11)
  with pytest.raises(ValueError, match="rho must be positive and finite, got 0"):
    timesteps.karras(schedule, 5, rho=0)
  for ts, length in (([3, 0], 0), ([3], 5), ([[3, 0]], 5)):
    with pytest.raises(ValueError, match="ts must be a vector"):
      timesteps.pad(ts, length)


def test_cut_leaves_the_share_of_the_steps_that_strength_names():
  ts = timesteps.uniform(1000, 50)
  for strength, steps in ((1.0, 50), (0.58, 29), (0.5, 25), (0.039, 1), (0.02, 1)):
    np.testing.assert_array_equal(timesteps.cut(ts, strength), ts[-1 - steps :])


@pytest.mark.parametrize("strength", [0.0, 0.01, -1.0, 1.1, float("nan")])
def test_cut_refuses(strength):
  with pytest.raises(ValueError, match=f"strength must be .*got {strength}"):
    timesteps.cut(timesteps.uniform(1000, 50), strength)


@pytest.mark.parametrize(("S", "jump", "repeats"), [(250, 10, 10), (20, 3, 2), (10, 1, 4), (10, 20, 3)])
def test_repaint_equals_diffusers(S, jump, repeats):
  """diffusers goes up level by level, which is the same in distribution: its steps up are merged here."""
  diffusers = pytest.importorskip("diffusers")
  scheduler = diffusers.RePaintScheduler()
  scheduler.set_timesteps(S, jump, repeats)
  theirs = scheduler.timesteps.numpy() + 1
  turning = [
    i
    for i in range(len(theirs))
    if not (0 < i < len(theirs) - 1 and theirs[i - 1] < theirs[i] < theirs[i + 1])
  ]
  ours = timesteps.repaint(timesteps.leading(1000, S), jump, repeats)
  np.testing.assert_array_equal(ours, [*theirs[turning], 0])


@pytest.mark.parametrize("change", [{"jump": 0}, {"repeats": 0}, {"jump": 1.5}])
def test_repaint_refuses(change):
  with pytest.raises(ValueError, match="must be a positive integer"):
    timesteps.repaint(timesteps.uniform(1000, 10), **change)
