"""Weights of other projects: against torch and diffusers themselves, with random weights."""

import copy
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddim_jax import interop

torch = pytest.importorskip("torch", reason="parity is measured against torch")
diffusers = pytest.importorskip("diffusers", reason="parity is measured against diffusers")
from diffusers.schedulers import scheduling_ddpm  # noqa: E402

from tests.helpers import slow_but  # noqa: E402
from tests.parity import NETWORKS, TINY, our_images, relative, saved, torch_output  # noqa: E402


def labels_for(config, batch):
  if config.get("class_embed_type") == "identity":
    return np.random.default_rng(3).standard_normal((batch, 64)).astype(np.float32)
  conditional = "num_class_embeds" in config or config.get("class_embed_type")
  return np.array([4, 0, 2][:batch]) if conditional else None


SMALLEST = ("classes", "scale and shift", "flipped, no shift, centred")


@pytest.mark.parametrize("name", slow_but(lambda name: name in SMALLEST, NETWORKS))
def test_output_equals_diffusers_and_export_is_the_identity(name, tmp_path):
  config = NETWORKS[name]
  network = saved(tmp_path / "in", config)
  ours = interop.load_diffusers(tmp_path / "in")
  size = config["sample_size"]
  rng = np.random.default_rng(1)
  x = rng.standard_normal((3, size, size, config.get("in_channels", 3))).astype(np.float32)
  t, labels = np.array([2, 500, 1000]), labels_for(config, 3)
  expected = torch_output(network, x, t, labels)
  assert np.std(expected) > (1e-4 if "fourier" in name else 0.05)
  output = jax.jit(ours.model.apply)(ours.variables, x, t, labels)
  assert relative(output, expected) < 2e-5

  interop.save_diffusers(tmp_path / "out", ours)
  again = diffusers.UNet2DModel.from_pretrained(tmp_path / "out" / "unet").eval()
  before, after = network.state_dict(), again.state_dict()
  assert before.keys() == after.keys()
  for key, value in before.items():
    np.testing.assert_array_equal(value.numpy(), after[key].numpy(), err_msg=key)
  assert relative(torch_output(again, x, t, labels), expected) <= 1e-6
  pipeline = diffusers.DDIMPipeline.from_pretrained(tmp_path / "out")
  assert pipeline.scheduler.config.timestep_spacing == "leading"


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
  """One small network in both libraries, and its forward pass compiled."""
  folder = tmp_path_factory.mktemp("pair")
  network = saved(folder, TINY)
  return folder, network


SCHEDULERS = [
  {"timestep_spacing": spacing, "clip_sample": False, **more}
  for spacing in ("leading", "trailing", "linspace")
  for more in ({}, {"prediction_type": "v_prediction", "beta_schedule": "squaredcos_cap_v2"})
] + [
  {"steps_offset": 1, "set_alpha_to_one": False, "clip_sample": False},
  {"set_alpha_to_one": False, "clip_sample": True, "prediction_type": "sample"},
  {"beta_schedule": "scaled_linear", "beta_start": 0.001, "beta_end": 0.012},
  {"trained_betas": np.linspace(1e-3, 0.03, 200).tolist(), "num_train_timesteps": 200},
  {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "prediction_type": "v_prediction"},
]


def their_images(network, scheduler, S, x_T):
  x = torch.from_numpy(np.array(x_T).transpose(0, 3, 1, 2))
  scheduler.set_timesteps(S)
  with torch.no_grad():
    for t in scheduler.timesteps:
      x = scheduler.step(network(x, t).sample, t, x).prev_sample
  return x.numpy().transpose(0, 2, 3, 1)


CONFIGS = slow_but(lambda config: config is SCHEDULERS[1], SCHEDULERS)


@pytest.mark.parametrize("config", CONFIGS, ids=", ".join)
def test_ddim_images_equal_diffusers(pair, config):
  folder, network = pair
  scheduler = diffusers.DDIMScheduler(**config)
  loaded = interop.load_diffusers(folder, scheduler=dict(scheduler.config) | {"_class_name": "DDIMScheduler"})
  np.testing.assert_allclose(loaded.schedule.alpha_bar[1:], scheduler.alphas_cumprod, rtol=2e-4, atol=1e-7)
  S = 20 if config.get("timestep_spacing") != "trailing" else 30  # 30 does not divide 1000
  x_T = jax.random.normal(jax.random.key(5), (2, 8, 8, 3), jnp.float32)
  expected = their_images(network, scheduler, S, x_T)
  images = our_images(interop.like_diffusers(loaded, S), S, x_T, jax.random.key(0))
  assert np.abs(images - expected).max() <= 1e-4 * max(1, np.abs(expected).max())


CLIPPED = [
  pytest.param({"timestep_spacing": spacing, "clip_sample_range": limit}, limit, id=f"{spacing}-{limit}")
  for spacing in ("leading", "trailing", "linspace")
  for limit in (1.0, 1.5)
]
THRESHOLDED = {"thresholding": True, "sample_max_value": 2.0, "dynamic_thresholding_ratio": 0.9}


@pytest.mark.slow
@pytest.mark.parametrize(("options", "limit"), [*CLIPPED, pytest.param(THRESHOLDED, 1.0, id="thresholding")])
def test_clipped_images_of_random_weights_equal_diffusers_in_float64(pair, options, limit):
  """In float32 both sides are up to 2e-4 from these images: a network that never learned to undo noise lets
  the rounding at the noisiest levels grow. With trained weights float32 is enough: see test_interop_files.
  """
  folder, network = pair
  scheduler = diffusers.DDIMScheduler(**options)
  config = dict(scheduler.config) | {"_class_name": "DDIMScheduler"}
  x_T = np.random.default_rng(5).standard_normal((2, 8, 8, 3))
  scheduler.alphas_cumprod = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
  expected = their_images(copy.deepcopy(network).double(), scheduler, 20, x_T)
  with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):  # Flax's GroupNorm mixes the two widths
    loaded = interop.like_diffusers(interop.load_diffusers(folder, scheduler=config), 20)
    loaded = loaded._replace(model=loaded.model.clone(dtype=jnp.float64))
    images = our_images(loaded, 20, jnp.asarray(x_T), jax.random.key(0))
  assert images.dtype == np.float64
  share = 0.01 if "thresholding" in options else 0.02  # which moves the ends that are left to 1
  assert np.mean(np.abs(expected) > 0.99 * limit) > share  # clipping does something
  np.testing.assert_allclose(images, expected, rtol=0, atol=3e-5)  # both embed the level in float32


@pytest.mark.slow
@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_ddpm_images_equal_diffusers(pair, spacing, variance, monkeypatch):
  folder, network = pair
  scheduler = diffusers.DDPMScheduler(timestep_spacing=spacing, variance_type=variance)
  loaded = interop.load_diffusers(folder, scheduler=dict(scheduler.config) | {"_class_name": "DDPMScheduler"})
  key, S = jax.random.key(0), 50
  noise = iter(range(1, S + 1))

  def same_noise(shape, **kwargs):
    z = jax.random.normal(jax.random.fold_in(key, next(noise)), (2, 8, 8, 3))
    return torch.from_numpy(np.array(z).transpose(0, 3, 1, 2))

  monkeypatch.setattr(scheduling_ddpm, "randn_tensor", same_noise)
  x_T = jax.random.normal(jax.random.key(5), (2, 8, 8, 3))
  expected = their_images(network, scheduler, S, x_T)
  images = our_images(loaded, S, x_T, key)
  if spacing == "trailing" and variance == "fixed_large":
    # Their last step, from level 20 to clean data, adds noise; ours never does.
    z = np.asarray(jax.random.normal(jax.random.fold_in(key, S), x_T.shape))
    expected = expected - z * float(1 - scheduler.alphas_cumprod[scheduler.timesteps[-1]]) ** 0.5
  assert np.abs(images - expected).max() <= 1e-4


@pytest.mark.parametrize(
  ("config", "message"),
  [
    ({"down_block_types": ["SkipDownBlock2D", "DownBlock2D"]}, "down_block_types.*SkipDownBlock2D"),
    ({"time_embedding_type": "learned"}, "time_embedding_type.*learned"),
    ({"downsample_type": "resnet"}, "downsample_type.*resnet"),
    ({"downsample_padding": 2}, "downsample_padding must be one of 0, 1, got 2"),
    ({"resnet_time_scale_shift": "spatial"}, "resnet_time_scale_shift.*spatial"),
    ({"act_fn": "tanh"}, "act_fn.*tanh"),
    ({"new_key": 1}, "unknown keys.*new_key"),
    ({"attention_head_dim": 5}, "attention_head_dim must divide"),
  ],
)
def test_what_is_not_supported_is_refused_by_name(tmp_path, config, message):
  (tmp_path / "config.json").write_text(json.dumps(TINY | config))
  with pytest.raises(ValueError, match=message):
    interop.load_diffusers(tmp_path, scheduler={"_class_name": "DDIMScheduler"})


def test_eps_without_signal_at_the_last_level_is_refused(pair):
  config = {"_class_name": "DDIMScheduler", "rescale_betas_zero_snr": True}
  with pytest.raises(ValueError, match="must be V, X0, EDM or FLOW for this schedule, got EPS"):
    interop.load_diffusers(pair[0], scheduler=config)


@pytest.mark.slow
def test_a_network_that_learned_its_variance(tmp_path, monkeypatch):
  """Twice as many channels out as in: DDPM with the range that it has learned, as diffusers samples it."""
  scheduler = diffusers.DDPMScheduler(variance_type="learned_range")
  network = saved(tmp_path, TINY | {"out_channels": 6}, scheduler)
  loaded = interop.load_diffusers(tmp_path)
  key, S = jax.random.key(0), 20
  noise = iter(range(1, S + 1))

  def same_noise(shape, **kwargs):
    z = jax.random.normal(jax.random.fold_in(key, next(noise)), (2, 8, 8, 3))
    return torch.from_numpy(np.array(z).transpose(0, 3, 1, 2))

  monkeypatch.setattr(scheduling_ddpm, "randn_tensor", same_noise)
  x_T = jax.random.normal(jax.random.key(5), (2, 8, 8, 3))
  expected = their_images(network, scheduler, S, x_T)
  assert np.abs(our_images(loaded, S, x_T, key) - expected).max() <= 2e-4
  traced = jax.jit(lambda variables, x: loaded.variance(variables)(x, 500))(loaded.variables, x_T)
  assert traced.shape == x_T.shape


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array_(_ implementation|wrap__):DeprecationWarning")  # torch's
@pytest.mark.parametrize(
  "scheduler",
  [
    diffusers.EulerDiscreteScheduler(use_karras_sigmas=True),
    diffusers.FlowMatchEulerDiscreteScheduler(),
    diffusers.EDMEulerScheduler(),
  ],
)
def test_other_schedulers_of_a_pipeline(pair, tmp_path, scheduler):
  """The network is asked in the coordinates, and at the time, that its scheduler says."""
  _, network = pair
  network.save_pretrained(tmp_path / "unet")
  scheduler.save_pretrained(tmp_path / "scheduler")
  loaded = interop.load_diffusers(tmp_path)
  scheduler.set_timesteps(5)
  sigma = float(scheduler.sigmas[0])
  flow = "Flow" in type(scheduler).__name__
  scale = np.hypot(1 - sigma, sigma) if flow else np.hypot(1, sigma)
  x_T = jax.random.normal(jax.random.key(5), (2, 8, 8, 3))
  x = torch.from_numpy(scale * np.array(x_T).transpose(0, 3, 1, 2)).float()
  with torch.no_grad():
    for t in scheduler.timesteps:
      scaled = x if flow else scheduler.scale_model_input(x, t)
      x = scheduler.step(network(scaled, t).sample, t, x).prev_sample
  expected = x.numpy().transpose(0, 2, 3, 1)
  images = our_images(loaded, 5, x_T, jax.random.key(0))
  assert np.abs(images - expected).max() <= 1e-3 * max(1, np.abs(expected).max())  # their float32 tables
  interop.save_diffusers(tmp_path / "again", loaded)
  again = diffusers.UNet2DModel.from_pretrained(tmp_path / "again", subfolder="unet")
  with torch.no_grad():
    np.testing.assert_array_equal(again(x, 3).sample, network(x, 3).sample)


def test_weights_that_do_not_fit_are_listed(pair, tmp_path):
  _, network = pair
  weights = network.state_dict()
  weights["extra.weight"] = weights.pop("conv_in.bias")
  weights["conv_out.weight"] = torch.zeros(3, 3)
  torch.save(weights, tmp_path / "diffusion_pytorch_model.bin")
  (tmp_path / "config.json").write_text(json.dumps(TINY))
  with pytest.raises(
    ValueError, match=r"missing conv_in\.bias.*conv_out\.weight is.*unexpected extra\.weight"
  ):
    interop.load_diffusers(tmp_path, scheduler={"_class_name": "DDIMScheduler"})


@pytest.mark.parametrize("safe", [True, False])
def test_shards_and_single_files_of_either_kind(pair, tmp_path, safe):
  folder, network = pair
  expected = interop.load_diffusers(folder).variables
  for place, limit in (("whole", "1GB"), ("shards", "100KB")):
    network.save_pretrained(tmp_path / place, safe_serialization=safe, max_shard_size=limit)
    loaded = interop.load_diffusers(tmp_path / place, scheduler={"_class_name": "DDIMScheduler"})
    jax.tree.map(np.testing.assert_array_equal, loaded.variables, expected)
  assert len(list((tmp_path / "shards").glob("diffusion_pytorch_model*"))) > 2


class Surprise:
  """Something that a pickle would have to run code for."""


def test_a_pickle_with_code_is_refused(tmp_path):
  torch.save({"conv_in.weight": Surprise()}, tmp_path / "model.ckpt")
  with pytest.raises(ValueError, match=r"refused.*other than tensors and plain containers"):
    interop.load_ddim(tmp_path / "model.ckpt")


def test_an_id_of_the_hub_offline_is_a_clear_error():
  with pytest.raises(ValueError, match="google/ddpm-cifar10-32 is not a local folder"):
    interop.load_diffusers("google/ddpm-cifar10-32")
