"""Files as others leave them: older, halved, damaged, contradictory; and pipelines as a whole."""

import json
import shutil
import sys

import jax
import numpy as np
import pytest

import ddim_jax
from ddim_jax import interop
from ddim_jax.interop import ours, schedulers
from ddim_jax.models import build, load

torch = pytest.importorskip("torch", reason="parity is measured against torch")
diffusers = pytest.importorskip("diffusers", reason="parity is measured against diffusers")
import safetensors.torch  # noqa: E402

from tests.helpers import random_variables  # noqa: E402
from tests.parity import (  # noqa: E402
  GOOGLE,
  NETWORKS,
  TINY,
  our_images,
  relative,
  saved,
  theirs,
  torch_output,
)

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tmp_path):
  saved(tmp_path / "pipeline", TINY)
  return tmp_path / "pipeline"


def rewrite(folder, change):
  """The weights of a pipeline folder, changed."""
  weights = change(safetensors.torch.load_file(folder / WEIGHTS))
  safetensors.torch.save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})


def test_attention_of_files_before_2023_has_other_names(folder):
  expected = interop.load_diffusers(folder).variables
  old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

  def rename(weights):
    for new, name in old.items():
      weights = {key.replace(f".{new}.", f".{name}."): value for key, value in weights.items()}
    return weights

  rewrite(folder, rename)
  assert not any("to_q" in name for name in safetensors.torch.load_file(folder / WEIGHTS))
  jax.tree.map(np.testing.assert_array_equal, interop.load_diffusers(folder).variables, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_exactly_and_comes_back_the_same(folder, tmp_path, dtype):
  rewrite(folder, lambda weights: {name: value.to(dtype) for name, value in weights.items()})
  before = safetensors.torch.load_file(folder / WEIGHTS)
  interop.save_diffusers(tmp_path / "out", interop.load_diffusers(folder))
  after = safetensors.torch.load_file(tmp_path / "out" / WEIGHTS)
  assert before.keys() == after.keys()
  for name, value in before.items():
    assert torch.equal(value.float(), after[name]), name
    assert torch.equal(value, after[name].to(dtype)), name


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"unet": ["diffusers", "UNet2DConditionModel"]}, "unet must be a UNet2DModel.*UNet2DConditionModel"),
    ({"scheduler": ["diffusers", "PNDMScheduler"]}, "names 'PNDMScheduler'.*'DDIMScheduler'"),
    ({"vqvae": ["diffusers", "VQModel"]}, "not supported: vqvae"),
  ],
)
def test_an_index_that_contradicts_the_files_is_refused(folder, change, message):
  index = json.loads((folder / "model_index.json").read_text())
  (folder / "model_index.json").write_text(json.dumps(index | change))
  with pytest.raises(ValueError, match=message):
    interop.load_diffusers(folder)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("name", ["model.ckpt", "diffusion_pytorch_model.safetensors"])
def test_a_file_cut_short_is_refused_in_a_sentence(folder, tmp_path, name, share):
  if name == "model.ckpt":
    torch.save({"conv_in.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / name)
    path, read = tmp_path / name, lambda: interop.load_ddim(tmp_path / name)
  else:
    path, read = folder / WEIGHTS, lambda: interop.load_diffusers(folder)
  content = path.read_bytes()
  path.write_bytes(content[: int(share * len(content))])
  with pytest.raises(ValueError, match=rf"{name} is (refused|not a sound)"):
    read()


def test_files_that_are_not_json_are_refused(folder):
  (folder / "unet" / "config.json").write_text("[1, 2")
  with pytest.raises(ValueError, match=r"config\.json is not JSON"):
    interop.load_diffusers(folder)
  (folder / "unet" / "config.json").write_text("[1, 2]")
  with pytest.raises(ValueError, match=r"config\.json must hold a JSON object, got list"):
    interop.load_diffusers(folder)


@pytest.mark.parametrize("package", ["torch", "huggingface_hub"])
def test_a_missing_package_is_named(tmp_path, monkeypatch, package):
  """Python's own way to say that a module is absent: None in its place."""
  torch.save({"a": torch.zeros(1)}, tmp_path / "model.pth")
  monkeypatch.setitem(sys.modules, package, None)
  reads = {
    "torch": lambda: interop.load_ddim(tmp_path / "model.pth"),
    "huggingface_hub": lambda: interop.load_diffusers("google/ddpm-cifar10-32"),
  }
  with pytest.raises(ValueError, match=f"install {package}"):
    reads[package]()


@pytest.mark.slow
def test_the_full_cifar10_network_equals_torch():
  """google/ddpm-cifar10-32's configuration at its true width: 35.7 M parameters."""
  config = GOOGLE | {
    "sample_size": 32, "block_out_channels": [128, 256, 256, 256],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
  }  # fmt: skip
  network = theirs(config)
  described = interop.describe(config, {"_class_name": "DDIMScheduler"})
  weights = {name: value.numpy() for name, value in network.state_dict().items()}
  ours_too = interop.assembly.assemble(
    lambda: weights, config, described.scheduler, interop.names.to_diffusers, "torch"
  )
  assert sum(leaf.size for leaf in jax.tree.leaves(ours_too.variables)) == 35_746_307
  x = np.random.default_rng(0).standard_normal((1, 32, 32, 3)).astype(np.float32)
  t = np.array([400])
  output = jax.jit(ours_too.model.apply)(ours_too.variables, x, t)
  assert relative(output, torch_output(network, x, t)) < 2e-5


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  """The model that comes with the package, as a folder of diffusers."""
  folder = tmp_path_factory.mktemp("trained") / "pipeline"
  interop.save_diffusers(folder, build.to_pretrained(load("fashion_mnist")))
  return folder


@pytest.mark.slow
@pytest.mark.parametrize("clip", [True, False])
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_the_pipeline_itself_draws_the_same_images(trained, tmp_path, spacing, clip):
  """DDIMPipeline called as its users call it, with trained weights, 20 steps, its own generator's noise."""
  shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
  scheduler = diffusers.DDIMScheduler(timestep_spacing=spacing, clip_sample=clip)
  scheduler.save_pretrained(tmp_path / "scheduler")
  pipeline = diffusers.DDIMPipeline.from_pretrained(tmp_path)
  pipeline.set_progress_bar_config(disable=True)
  generator = torch.Generator().manual_seed(3)
  expected = pipeline(2, generator, num_inference_steps=20, output_type="np").images
  x_T = torch.randn((2, 1, 28, 28), generator=torch.Generator().manual_seed(3)).numpy()[:, 0, :, :, None]
  loaded = interop.load_diffusers(tmp_path)
  images = our_images(interop.like_diffusers(loaded, 20), 20, x_T, jax.random.key(0))
  assert np.std(expected) > 0.05
  np.testing.assert_allclose(np.clip(images / 2 + 0.5, 0, 1), expected, rtol=0, atol=1e-4)


FLOWS = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}


@pytest.mark.parametrize(
  ("name", "settings", "pipeline"),
  [
    ("DDIMScheduler", {}, "DDIMPipeline"),
    ("DDPMScheduler", {}, "DDPMPipeline"),
    ("DPMSolverMultistepScheduler", FLOWS, "DDPMPipeline"),
    ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, "DDPMPipeline"),
    ("EulerDiscreteScheduler", {}, "DDIMPipeline"),
    # A DDIMScheduler would ask these for other samples or at other times than they know.
    (
      "EulerDiscreteScheduler",
      {"timestep_type": "continuous", "prediction_type": "v_prediction"},
      None,
    ),
    ("UniPCMultistepScheduler", FLOWS, None),
    ("EDMEulerScheduler", {}, None),
  ],
)
def test_a_folder_names_a_pipeline_only_if_it_draws_from_such_a_network(name, settings, pipeline, tmp_path):
  described = interop.describe(TINY, {"_class_name": name} | settings)
  params = random_variables(described.model, (1, 8, 8, 3))["params"]
  interop.save_diffusers(tmp_path / "out", described._replace(variables={"params": params}))
  assert interop.pipeline_of(described) == pipeline
  index = tmp_path / "out" / "model_index.json"
  assert (json.loads(index.read_text())["_class_name"] if index.exists() else None) == pipeline
  assert build.from_pretrained(interop.load_diffusers(tmp_path / "out")).shape == (8, 8, 3)


@pytest.mark.slow
@pytest.mark.filterwarnings(
  "ignore:__array_(_ implementation|wrap__):DeprecationWarning"
)  # of numpy 2 and torch
@pytest.mark.parametrize("settings", [FLOWS | {"flow_shift": 2.0}, {"shift": 3.0}], ids=["DPM", "Euler"])
def test_flow_matching_written_again_is_drawn_the_same_by_their_pipeline(settings, tmp_path, monkeypatch):
  """By whichever pipeline the folder names."""
  kind = "DPMSolverMultistepScheduler" if "flow_shift" in settings else "FlowMatchEulerDiscreteScheduler"
  saved(tmp_path / "in", TINY, getattr(diffusers, kind)(**settings))
  loaded = interop.load_diffusers(tmp_path / "in")
  interop.save_diffusers(tmp_path / "out", loaded)
  pipeline = diffusers.DiffusionPipeline.from_pretrained(tmp_path / "out")
  pipeline.set_progress_bar_config(disable=True)
  x_T = np.random.default_rng(0).standard_normal((1, 8, 8, 3)).astype(np.float32)
  pipeline.scheduler.set_timesteps(5)
  u = float(pipeline.scheduler.sigmas[0])  # their sample has 1 - u of the data and u of the noise
  as_theirs = torch.from_numpy(x_T.transpose(0, 3, 1, 2) * np.float32(np.hypot(1 - u, u)))
  monkeypatch.setattr("diffusers.pipelines.ddpm.pipeline_ddpm.randn_tensor", lambda *_, **__: as_theirs)
  expected = pipeline(num_inference_steps=5, output_type="np").images
  images = our_images(loaded, 5, x_T, jax.random.key(0))
  np.testing.assert_allclose(np.clip(images / 2 + 0.5, 0, 1), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_describing_a_network_in_their_words_is_the_inverse_of_reading_them(name):
  scheduler = {"_class_name": "DDIMScheduler"}
  model = interop.describe(NETWORKS[name], scheduler).model
  config = ours.unet_config(model, NETWORKS[name]["sample_size"])
  assert interop.describe(config, scheduler).model == model
  network = diffusers.UNet2DModel(**{key: value for key, value in config.items() if key[0] != "_"})
  expected = diffusers.UNet2DModel(**NETWORKS[name])
  shapes = lambda network: {name: tuple(value.shape) for name, value in network.state_dict().items()}
  assert shapes(network) == shapes(expected)


@pytest.mark.parametrize("classes", [None, 4])
def test_a_network_of_ours_computes_the_same_in_torch(classes, tmp_path):
  model = ddim_jax.UNet(
    channels=16, multipliers=(1, 2), blocks=1, attention=(4,), groups=8, num_classes=classes, dropout=0.1
  )
  x = np.random.default_rng(0).standard_normal((3, 8, 8, 3)).astype(np.float32)
  params = random_variables(model, x.shape)["params"]
  mine = interop.from_ours(
    model, {"params": params}, ddim_jax.cosine_schedule(100), ddim_jax.V, size=8, clip=False
  )
  interop.save_diffusers(tmp_path / "out", mine)
  pipeline = diffusers.DDIMPipeline.from_pretrained(tmp_path / "out")
  assert pipeline.scheduler.config.prediction_type == "v_prediction"
  assert pipeline.scheduler.config.beta_schedule == "squaredcos_cap_v2"
  t = np.array([1, 50, 100])
  labels = None if classes is None else np.array([0, 3, classes])  # the last is the null class
  expected = torch_output(pipeline.unet.eval(), x, t, labels)
  assert relative(jax.jit(model.apply)({"params": params}, x, t, labels), expected) < 2e-5


@pytest.mark.parametrize(
  "make",
  [
    ddim_jax.linear_schedule,
    ddim_jax.quadratic_schedule,
    ddim_jax.cosine_schedule,
    ddim_jax.sigmoid_schedule,
    ddim_jax.constant_schedule,
    lambda: ddim_jax.zero_terminal_snr(ddim_jax.linear_schedule()),
    lambda: ddim_jax.linear_schedule(200, 1e-3, 0.03),
  ],
)
def test_every_schedule_of_ours_has_their_words(make):
  schedule = make()
  config = ours.scheduler_config(schedule, ddim_jax.EPS)
  back = schedulers.from_scheduler(config).schedule
  np.testing.assert_allclose(back.log_snr, schedule.log_snr, rtol=2e-5, atol=2e-5)
  scheduler = diffusers.DDIMScheduler(**{key: value for key, value in config.items() if key[0] != "_"})
  np.testing.assert_allclose(scheduler.alphas_cumprod, schedule.alpha_bar[1:], rtol=3e-4, atol=1e-7)


def test_what_they_have_no_words_for_is_refused():
  network = lambda **settings: ddim_jax.UNet(channels=16, multipliers=(1,), groups=8, **settings)
  for model, message in (
    (network(activation=jax.numpy.tanh), "activation"),
    (network(down_padding=((1, 0), (1, 0))), "down_padding"),
    (network(middle_groups=0), "without a norm"),
  ):
    with pytest.raises(ValueError, match=message):
      ours.unet_config(model, 8)
  odd = ddim_jax.EPS._replace(target=lambda *values: values[0])
  for meaning, name in ((odd, "another"), (ddim_jax.FLOW, "FLOW"), (ddim_jax.EDM, "EDM")):
    with pytest.raises(ValueError, match=f"only the predictions EPS, X0 and V .* got {name}$"):
      ours.scheduler_config(ddim_jax.linear_schedule(), meaning)
  last_is_noise = ddim_jax.zero_terminal_snr(ddim_jax.sigmoid_schedule())
  with pytest.raises(ValueError, match="last level is noise alone"):
    ours.scheduler_config(last_is_noise, ddim_jax.V)
