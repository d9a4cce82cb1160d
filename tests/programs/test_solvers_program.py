"""The study of solvers, and the solvers and spacings that have names."""

import json
from typing import get_args

import jax
import numpy as np
import pytest

import ddim_jax
from ddim_jax import checkpoints
from ddim_jax.models import build, config, tables
from experiments.studies import solver_errors as solvers


def test_every_name_is_a_solver():
  assert set(get_args(tables.SolverName)) == set(tables.SOLVERS)
  for make in tables.SOLVERS.values():
    assert isinstance(make(0.0), ddim_jax.Solver)
  assert set(solvers.STEPS) < set(tables.SOLVERS)


@pytest.mark.parametrize("spacing", get_args(tables.SpacingName))
def test_every_spacing_of_the_programs(spacing):
  ts = tables.spacing(spacing, ddim_jax.linear_schedule())(7)
  assert len(ts) == 8
  assert ts[-1] == 0
  assert np.all(np.diff(ts) < 0)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  """The checkpoint of a small network that has learned nothing, but not to be zero: random weights."""
  folder = tmp_path_factory.mktemp("run")
  made = config.Config(network=config.Network(channels=8, multipliers=(1,), blocks=1, attention=(), groups=4))
  params = build.from_config(made, (8, 8, 1)).init(jax.random.key(0))
  random = np.random.default_rng(0)
  moved = lambda leaf: np.asarray(leaf + 0.1 * random.standard_normal(leaf.shape), np.float32)
  params = jax.tree.map(moved, params)
  saved = {"config": build.to_json(made), "image": [8, 8, 1], "classes": []}
  with checkpoints.open_manager(folder / "checkpoints") as manager:
    checkpoints.save(manager, 1, {"ema": params}, saved)
  return folder


@pytest.mark.slow
def test_the_program_measures_mixture_and_model(workdir, tmp_path, monkeypatch, capsys):
  chosen = {name: solvers.STEPS[name] for name in ("ddim", "dpmpp-2m", "unipc3")}
  monkeypatch.setattr(solvers, "STEPS", chosen)  # every solver compiles the network
  solvers.solver_errors(str(workdir), out=tmp_path, evaluations=(10, 50), num=32, images=2)
  found = json.loads((tmp_path / "solvers.json").read_text())["errors"]
  assert len(found) == 2
  mixture = found["mixture"]
  assert mixture["dpmpp-2m"]["50"] < mixture["dpmpp-2m"]["10"] / 10
  assert mixture["unipc3"]["50"] < mixture["dpmpp-2m"]["50"] < mixture["ddim"]["50"] / 3
  for errors in found.values():
    assert set(errors) == set(chosen)
    assert errors["ddim"]["50"] < errors["ddim"]["10"]
  text = (tmp_path / "solvers.md").read_text()
  assert "Best at 10 evaluations" in text
  assert text.count("| unipc3 |") == 2
  assert (tmp_path / "solvers.png").stat().st_size > 10_000
  assert "wrote" in capsys.readouterr().out


def test_the_mixture_denoiser_is_the_posterior_mean():
  """Against a sum over many samples of the data."""
  schedule, rng = ddim_jax.linear_schedule(), np.random.default_rng(0)
  angles = 2 * np.pi * rng.integers(8, size=200_000) / 8
  data = np.stack([np.cos(angles), np.sin(angles)], axis=1) + 0.15 * rng.standard_normal((200_000, 2))
  x_t, t = np.array([[0.2, -0.6]], np.float32), 400
  alpha, sigma = float(schedule.alpha[t]), float(schedule.sigma[t])
  weights = np.exp(-np.sum((x_t - alpha * data) ** 2, axis=1) / (2 * sigma**2))
  expected = weights @ data / weights.sum()
  got = solvers.mixture_denoiser(schedule)(jax.numpy.asarray(x_t, schedule.log_snr.dtype), t)
  np.testing.assert_allclose(got.x0[0], expected, atol=0.01)
  np.testing.assert_allclose(alpha * got.x0 + sigma * got.eps, x_t, atol=1e-5)


def test_the_program_refuses(tmp_path):
  with pytest.raises(ValueError, match="evaluations"):
    solvers.solver_errors(out=tmp_path, evaluations=())
