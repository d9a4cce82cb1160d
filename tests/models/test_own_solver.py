"""A model draws with the solver that its files name, unless another is asked for."""

import dataclasses
import json

import numpy as np
import pytest

import ddim_jax
from ddim_jax import plots
from ddim_jax.commands import inspect_model, sample_images
from ddim_jax.models import build, drawing
from ddim_jax.models.config import Config, Diffusion, Network
from ddim_jax.runs import halving
from ddim_jax.seeds import draw_noise, image_keys, key_of

# torch's own, when numpy 2 reads a tensor
pytestmark = pytest.mark.filterwarnings("ignore:__array_(_ implementation|wrap__):DeprecationWarning")

STEPS, NUM, SEED = 6, 2, 3
V = {"prediction_type": "v_prediction"}
SMALL = Config(network=Network(channels=8, multipliers=(1,), blocks=1, attention=(), groups=4))


@pytest.fixture(scope="module")
def peer():
  """diffusers; these tests skip without it."""
  pytest.importorskip("torch", reason="the networks come from torch")
  return pytest.importorskip("diffusers", reason="the folders come from diffusers")


def made(peer, folder, name, **settings):
  """A folder with a small network and this scheduler; the network, the scheduler and our model of it."""
  from tests import parity

  scheduler = getattr(peer, name)(**V | settings)
  return parity.saved(folder, parity.TINY, scheduler), scheduler, ddim_jax.load(folder)


def noises(model, number):
  """Our draw of this number, as theirs: ``[B, C, H, W]`` of torch."""
  import torch

  keys = image_keys(key_of(SEED), np.arange(NUM))
  drawn = np.array(draw_noise(keys, number, (NUM, *model.shape), np.float32))
  return torch.from_numpy(drawn.transpose(0, 3, 1, 2).copy())


@pytest.mark.slow
def test_a_pipeline_with_dpm_solver_draws_the_same_pictures(peer, tmp_path, monkeypatch):
  """Against the pipeline itself."""
  network, scheduler, model = made(peer, tmp_path / "in", "DPMSolverMultistepScheduler")
  pipeline = peer.DDPMPipeline(network, scheduler)
  pipeline.set_progress_bar_config(disable=True)
  monkeypatch.setattr(
    "diffusers.pipelines.ddpm.pipeline_ddpm.randn_tensor", lambda *_, **__: noises(model, 0)
  )
  expected = pipeline(NUM, num_inference_steps=STEPS, output_type="np").images
  got = np.clip((model.sample(NUM, steps=STEPS, seed=SEED) + 1) / 2, 0, 1)
  np.testing.assert_allclose(got, expected, atol=5e-4)  # their float32 tables
  assert np.abs(model.sample(NUM, steps=STEPS, seed=SEED, solver="ddim") / 2 + 0.5 - expected).max() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize(
  "name", ["UniPCMultistepScheduler", "EulerAncestralDiscreteScheduler", "LMSDiscreteScheduler"]
)
def test_loops_of_their_schedulers_draw_the_same_pictures(name, peer, tmp_path, monkeypatch):
  network, scheduler, model = made(peer, tmp_path / "in", name, timestep_spacing="trailing")
  draws = iter(range(1, STEPS + 1))
  module = f"diffusers.schedulers.{type(scheduler).__module__.rsplit('.', 1)[-1]}"
  if name.startswith("EulerAncestral"):
    monkeypatch.setattr(f"{module}.randn_tensor", lambda *_, **__: noises(model, next(draws)))
  scheduler.set_timesteps(STEPS)
  x = noises(model, 0)
  if not name.startswith("UniPC"):  # the others have x / alpha
    x = x * float(np.hypot(1, scheduler.sigmas[0]))
  import torch

  with torch.no_grad():
    for t in scheduler.timesteps:
      said = network(scheduler.scale_model_input(x, t), t).sample
      x = scheduler.step(said, t, x).prev_sample
  expected = x.numpy().transpose(0, 2, 3, 1)
  got = model.sample(NUM, steps=STEPS, seed=SEED)
  np.testing.assert_allclose(got, expected, atol=1e-3 * np.abs(expected).max())


@pytest.mark.slow
def test_it_is_kept_in_files_and_shown(peer, tmp_path, capsys):
  _, _, model = made(peer, tmp_path / "in", "DPMSolverMultistepScheduler", solver_order=3)
  assert model.solver_name == "DPMSolverMultistepScheduler"
  drawn = model.sample(NUM, steps=STEPS)
  for place in (tmp_path / "one.safetensors", tmp_path / "out"):
    model.save(place, half=False)
    again = ddim_jax.load(place)
    assert again.solver_name == model.solver_name
    np.testing.assert_allclose(again.sample(NUM, steps=STEPS), drawn, atol=1e-5)
  scheduler = json.loads((tmp_path / "out" / "scheduler" / "scheduler_config.json").read_text())
  assert (scheduler["_class_name"], scheduler["solver_order"]) == ("DPMSolverMultistepScheduler", 3)
  assert inspect_model.inspect(str(tmp_path / "one.safetensors")) == 0
  assert "\nsolver: DPMSolverMultistepScheduler\n" in capsys.readouterr().out

  def sample(*words):
    out = tmp_path / "drawn.npz"
    out.unlink(missing_ok=True)
    out.with_suffix(".settings.json").unlink(missing_ok=True)
    argv = [str(tmp_path / "in"), "--num", str(NUM), "--steps", str(STEPS), "--out", str(out), *words]
    sample_images.sample(sample_images.parse(argv))
    found = np.load(out)
    return found["arr_0"], json.loads(str(found["settings"]))["solver"]

  pixels, named = sample()
  assert f"{STEPS} steps of DPMSolverMultistepScheduler over levels" in capsys.readouterr().out
  np.testing.assert_array_equal(pixels, model.scaling.to_values(drawn))
  assert (named, sample("--solver", "ddim")[1]) == ("DPMSolverMultistepScheduler", "ddim")
  with pytest.raises(ValueError, match=r"eta goes with the solver ddim, got eta 0.5 with DPMSolverMulti"):
    sample("--eta", "0.5")
  with pytest.raises(ValueError, match=r"eta goes with the solver ddim, got eta 0.5 with DPMSolverMulti"):
    model.sample(NUM, steps=STEPS, eta=0.5)
  assert model.sample(NUM, steps=STEPS, eta=0.5, solver="ddim").shape == (NUM, *model.shape)
  grid = tmp_path / "trajectory.png"
  sample_images.sample(
    sample_images.parse(
      [str(tmp_path / "in"), "--trajectory", "--num", "1", "--steps", "3", "--out", str(grid)]
    )
  )
  assert plots.read_settings(grid)["solver"] == "DPMSolverMultistepScheduler"


@pytest.mark.parametrize(
  ("name", "settings", "expected"),
  [
    ("DDIMScheduler", {}, "ddim"),
    ("DDPMScheduler", {}, "ddim"),
    ("EulerDiscreteScheduler", {}, "ddim"),
    ("FlowMatchEulerDiscreteScheduler", {}, "ddim"),
    ("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}, "FlowMatchEulerDiscreteScheduler"),
    ("HeunDiscreteScheduler", {}, "HeunDiscreteScheduler"),
    ("DPMSolverSDEScheduler", {}, "DPMSolverSDEScheduler"),
  ],
)
def test_what_is_ddim_with_an_eta_of_ones_choice(name, settings, expected):
  """A DDPM scheduler is in the files of nearly every network; DDIM draws from those."""
  network = {"sample_size": 8, "block_out_channels": [8], "layers_per_block": 1, "norm_num_groups": 4}
  network |= {"down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"]}
  described = ddim_jax.interop.describe(network, {"_class_name": name} | settings)
  assert build.from_pretrained(described).solver_name == expected


@pytest.mark.slow
def test_a_configuration_can_name_one():
  config = dataclasses.replace(SMALL, diffusion=Diffusion(solver="unipc2"))
  model = build.from_config(build.from_json(build.to_json(config)), (8, 8, 1))
  assert (model.solver, model.solver_name) == ("unipc2", "unipc2")
  model = model.replace(params=model.init(drawing.key_of(0)))
  given = {"steps": 3, "seed": 1}
  np.testing.assert_array_equal(model.sample(1, **given), model.sample(1, solver="unipc2", **given))
  student = halving.as_student(model, 4, "")
  assert (student.solver_name, student.config.diffusion.solver) == ("ddim", "ddim")
  wrong = dataclasses.replace(SMALL, diffusion=Diffusion(solver="euler"))
  with pytest.raises(ValueError, match="solver must be"):
    build.from_config(wrong, (8, 8, 1))
