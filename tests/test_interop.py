"""Weights of other projects: against torch and diffusers themselves, with random weights."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ddim_jax
from ddim_jax import interop

torch = pytest.importorskip("torch", reason="parity is measured against torch")
diffusers = pytest.importorskip("diffusers", reason="parity is measured against diffusers")
from diffusers.schedulers import scheduling_ddpm  # noqa: E402

DOWN, UP = ["DownBlock2D"], ["UpBlock2D"]
ATTN_DOWN, ATTN_UP = ["AttnDownBlock2D"], ["AttnUpBlock2D"]
GOOGLE = {
  "attention_head_dim": None, "downsample_padding": 0, "flip_sin_to_cos": False, "freq_shift": 1,
  "norm_eps": 1e-6, "layers_per_block": 2,
}  # fmt: skip
TINY = {
  "block_out_channels": [16, 32], "layers_per_block": 1, "norm_num_groups": 8, "attention_head_dim": 8,
  "down_block_types": DOWN + ATTN_DOWN, "up_block_types": ATTN_UP + UP, "sample_size": 8,
}  # fmt: skip
NETWORKS = {
  "cifar10-32": GOOGLE | {
    "sample_size": 32, "block_out_channels": [32, 64, 64, 64],
    "down_block_types": DOWN + ATTN_DOWN + DOWN + DOWN, "up_block_types": UP + UP + ATTN_UP + UP,
  },
  "six levels, as at 256": GOOGLE | {
    "sample_size": 32, "block_out_channels": [32, 32, 64, 64, 128, 128],
    "down_block_types": DOWN * 4 + ATTN_DOWN + DOWN, "up_block_types": UP + ATTN_UP + UP * 4,
  },
  "classes": TINY | {"num_class_embeds": 5},
  "classes as times": TINY | {"class_embed_type": "timestep"},
  "classes as vectors": TINY | {"class_embed_type": "identity"},
  "scale and shift": TINY | {"resnet_time_scale_shift": "scale_shift"},
  "scale and shift, norm in the middle": TINY
  | {"resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 4, "time_embedding_dim": 24},
  "heads, middle scaled": TINY | {"attention_head_dim": 4, "mid_block_scale_factor": 1.7, "dropout": 0.1},
  "flipped, no shift, centred": TINY
  | {"flip_sin_to_cos": True, "freq_shift": 0, "center_input_sample": True, "act_fn": "mish"},
  "not flipped, no attention in the middle": TINY
  | {"flip_sin_to_cos": False, "freq_shift": 1, "add_attention": False, "act_fn": "gelu"},
  "fourier, no middle": TINY | {"time_embedding_type": "fourier", "mid_block_type": None, "act_fn": "relu"},
  "attention on one side": TINY
  | {"up_block_types": UP * 2, "in_channels": 4, "block_out_channels": [16, 24]},
}  # fmt: skip


def theirs(config, seed=0):
  """A UNet2DModel with weights of ordinary size everywhere, biases and norms included."""
  torch.manual_seed(seed)
  network = diffusers.UNet2DModel(**config).eval()
  with torch.no_grad():
    for parameter in network.parameters():
      if parameter.ndim == 1:
        parameter.add_(0.1 * torch.randn_like(parameter))
  return network


def saved(folder, config, scheduler=None):
  """A pipeline folder that diffusers wrote, and its network."""
  network = theirs(config)
  scheduler = diffusers.DDIMScheduler() if scheduler is None else scheduler
  diffusers.DDIMPipeline(network, scheduler).save_pretrained(folder)
  if isinstance(scheduler, diffusers.DDPMScheduler):  # DDIMPipeline converts what it is given
    scheduler.save_pretrained(folder / "scheduler")
    index = json.loads((folder / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", "DDPMScheduler"]
    (folder / "model_index.json").write_text(json.dumps(index))
  return network


def labels_for(config, batch):
  if config.get("class_embed_type") == "identity":
    return np.random.default_rng(3).standard_normal((batch, 64)).astype(np.float32)
  conditional = "num_class_embeds" in config or config.get("class_embed_type")
  return np.array([4, 0, 2][:batch]) if conditional else None


def relative(a, b):
  return np.linalg.norm(np.asarray(a) - np.asarray(b)) / np.linalg.norm(b)


def torch_output(network, x, t, labels=None):
  """Their output for our images and levels, NHWC."""
  with torch.no_grad():
    x = torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
    labels = None if labels is None else torch.from_numpy(labels)
    return network(x, torch.from_numpy(t - 1), labels).sample.numpy().transpose(0, 2, 3, 1)


@pytest.mark.parametrize("name", NETWORKS)
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
  {"clip_sample": True, "clip_sample_range": 1.5},
  {"thresholding": True, "sample_max_value": 2.0, "dynamic_thresholding_ratio": 0.9},
  {"steps_offset": 1, "set_alpha_to_one": False, "clip_sample": False},
  {"set_alpha_to_one": False, "clip_sample": True, "prediction_type": "sample"},
  {"beta_schedule": "scaled_linear", "beta_start": 0.001, "beta_end": 0.012},
  {"trained_betas": np.linspace(1e-3, 0.03, 200).tolist(), "num_train_timesteps": 200},
  {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "prediction_type": "v_prediction"},
]


def our_images(pretrained, S, x_T, key):
  @jax.jit
  def draw(variables, schedule):
    denoise = pretrained.denoiser(variables, schedule)
    return ddim_jax.sample(key, denoise, schedule, x_T, pretrained.timesteps(S), solver=pretrained.solver)[0]

  return np.asarray(draw(pretrained.variables, pretrained.schedule))


def their_images(network, scheduler, S, x_T):
  x = torch.from_numpy(np.array(x_T).transpose(0, 3, 1, 2))
  scheduler.set_timesteps(S)
  with torch.no_grad():
    for t in scheduler.timesteps:
      x = scheduler.step(network(x, t).sample, t, x).prev_sample
  return x.numpy().transpose(0, 2, 3, 1)


@pytest.mark.parametrize("config", SCHEDULERS, ids=lambda c: ", ".join(f"{k}" for k in c))
def test_ddim_images_equal_diffusers(pair, config):
  folder, network = pair
  scheduler = diffusers.DDIMScheduler(**config)
  loaded = interop.load_diffusers(folder, scheduler=dict(scheduler.config) | {"_class_name": "DDIMScheduler"})
  np.testing.assert_allclose(loaded.schedule.alpha_bar[1:], scheduler.alphas_cumprod, rtol=2e-4, atol=1e-7)
  S = 20 if config.get("timestep_spacing") != "trailing" else 30  # 30 does not divide 1000
  x_T = jax.random.normal(jax.random.key(5), (2, 8, 8, 3))
  expected = their_images(network, scheduler, S, x_T)
  images = our_images(interop.like_diffusers(loaded, S), S, x_T, jax.random.key(0))
  # Clipping at 1.5 misses 1e-4: over three noises the two differ by up to 2.3e-4, ours from the same steps
  # in float64 by up to 1.3e-4 and theirs by up to 2.0e-4.
  bound = 3e-4 if "clip_sample_range" in config else 1e-4 * max(1, np.abs(expected).max())
  assert np.abs(images - expected).max() <= bound


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


@pytest.mark.parametrize(
  ("config", "message"),
  [
    ({"_class_name": "PNDMScheduler"}, "_class_name.*PNDMScheduler"),
    ({"_class_name": "DDPMScheduler", "variance_type": "learned"}, "variance_type.*learned"),
    ({"_class_name": "DDIMScheduler", "beta_schedule": "laplace"}, "beta_schedule.*laplace"),
    ({"_class_name": "DDIMScheduler", "other": 1}, "unknown keys.*other"),
  ],
)
def test_schedulers_that_are_not_supported_are_refused_by_name(pair, config, message):
  with pytest.raises(ValueError, match=message):
    interop.load_diffusers(pair[0], scheduler=config)


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


def original_ddim(weights, x, t, *, heights_with_attention):
  """The forward pass of the original DDIM network in torch, from the names of its weights, NCHW."""
  F = torch.nn.functional
  has = lambda name: f"{name}.weight" in weights
  conv = lambda h, n, **kw: F.conv2d(h, weights[f"{n}.weight"], weights[f"{n}.bias"], **kw)
  norm = lambda h, n: F.group_norm(h, 32, weights[f"{n}.weight"], weights[f"{n}.bias"], eps=1e-6)
  linear = lambda h, n: F.linear(h, weights[f"{n}.weight"], weights[f"{n}.bias"])

  def residual(h, name):
    out = conv(F.silu(norm(h, f"{name}.norm1")), f"{name}.conv1", padding=1)
    out = out + linear(F.silu(embedding), f"{name}.temb_proj")[:, :, None, None]
    out = conv(F.silu(norm(out, f"{name}.norm2")), f"{name}.conv2", padding=1)
    return out + (conv(h, f"{name}.nin_shortcut") if has(f"{name}.nin_shortcut") else h)

  def attend(h, name):
    q, k, v = (conv(norm(h, f"{name}.norm"), f"{name}.{part}").flatten(2) for part in "qkv")
    scores = torch.softmax(torch.einsum("bcq,bck->bqk", q, k) * h.shape[1] ** -0.5, dim=-1)
    return h + conv(torch.einsum("bqk,bck->bcq", scores, v).reshape(h.shape), f"{name}.proj_out")

  half = weights["conv_in.weight"].shape[0] // 2
  angles = t[:, None].float() * torch.exp(-np.log(1e4) * torch.arange(half) / (half - 1))[None]
  embedding = linear(torch.cat([angles.sin(), angles.cos()], dim=1), "temb.dense.0")
  embedding = linear(F.silu(embedding), "temb.dense.1")
  h = conv(x, "conv_in", padding=1)
  skips, level = [h], 0
  while has(f"down.{level}.block.0.conv1"):
    block = 0
    while has(f"down.{level}.block.{block}.conv1"):
      h = residual(h, f"down.{level}.block.{block}")
      if h.shape[2] in heights_with_attention:
        h = attend(h, f"down.{level}.attn.{block}")
      skips.append(h)
      block += 1
    if has(f"down.{level}.downsample.conv"):
      h = conv(F.pad(h, (0, 1, 0, 1)), f"down.{level}.downsample.conv", stride=2)
      skips.append(h)
    level += 1
  h = residual(attend(residual(h, "mid.block_1"), "mid.attn_1"), "mid.block_2")
  for up in reversed(range(level)):
    for i in range(block + 1):
      h = residual(torch.cat([h, skips.pop()], dim=1), f"up.{up}.block.{i}")
      if h.shape[2] in heights_with_attention:
        h = attend(h, f"up.{up}.attn.{i}")
    if up:
      h = conv(F.interpolate(h, scale_factor=2, mode="nearest"), f"up.{up}.upsample.conv", padding=1)
  return conv(F.silu(norm(h, "norm_out")), "conv_out", padding=1)


def ddim_weights(multipliers, attended, seed):
  """Random weights under the original names: every shape written out from the description."""
  generator = torch.Generator().manual_seed(seed)
  weights, wide = {}, 128

  def add(name, *shape):
    fan = max(1, int(np.prod(shape[1:])))
    weights[f"{name}.weight"] = torch.randn(shape, generator=generator) * fan**-0.5
    weights[f"{name}.bias"] = 0.1 * torch.randn(shape[0], generator=generator)

  def norm(name, width):
    add(name, width)
    weights[f"{name}.weight"] = 1 + 0.1 * weights[f"{name}.weight"]

  def residual(name, before, after):
    norm(f"{name}.norm1", before), norm(f"{name}.norm2", after)
    add(f"{name}.conv1", after, before, 3, 3), add(f"{name}.conv2", after, after, 3, 3)
    add(f"{name}.temb_proj", after, wide)
    if before != after:
      add(f"{name}.nin_shortcut", after, before, 1, 1)

  def attend(name, width):
    norm(f"{name}.norm", width)
    for part in ("q", "k", "v", "proj_out"):
      add(f"{name}.{part}", width, width, 1, 1)

  add("temb.dense.0", wide, 32), add("temb.dense.1", wide, wide)
  add("conv_in", 32, 3, 3, 3), add("conv_out", 3, 32, 3, 3), norm("norm_out", 32)
  widths, width, skips = [32 * m for m in multipliers], 32, [32]
  for level, after in enumerate(widths):
    for i in range(2):
      residual(f"down.{level}.block.{i}", width, after)
      width = after
      if level == attended:
        attend(f"down.{level}.attn.{i}", width)
      skips.append(width)
    if level != len(widths) - 1:
      add(f"down.{level}.downsample.conv", width, width, 3, 3)
      skips.append(width)
  residual("mid.block_1", width, width), attend("mid.attn_1", width), residual("mid.block_2", width, width)
  for level, after in reversed(list(enumerate(widths))):
    for i in range(3):
      residual(f"up.{level}.block.{i}", width + skips.pop(), after)
      width = after
      if level == attended:
        attend(f"up.{level}.attn.{i}", width)
    if level:
      add(f"up.{level}.upsample.conv", width, width, 3, 3)
  return weights


@pytest.mark.parametrize(
  ("multipliers", "size", "attended"), [((1, 2, 2, 2), 32, 1), ((1, 2, 2, 2, 4), 64, 2)]
)
def test_original_ddim_files(multipliers, size, attended, tmp_path):
  """CIFAR-10's and CelebA-64's networks, attention at 16: training files, averaged or not, and bare ones."""
  model, ema = ddim_weights(multipliers, attended, 0), ddim_weights(multipliers, attended, 1)
  torch.save([{f"module.{k}": v for k, v in model.items()}, {}, 1, 2, ema], tmp_path / "ckpt.pth")
  torch.save(ema, tmp_path / "bare.ckpt")
  ours = interop.load_ddim(tmp_path / "ckpt.pth", size=size)
  apply = jax.jit(ours.model.apply)
  x = np.random.default_rng(0).standard_normal((1, size, size, 3)).astype(np.float32)
  t = np.array([700])
  for loaded, weights in (
    (ours, ema),
    (interop.load_ddim(tmp_path / "ckpt.pth", ema=False, size=size), model),
    (interop.load_ddim(tmp_path / "bare.ckpt", size=size), ema),
  ):
    with torch.no_grad():
      x_nchw = torch.from_numpy(x).permute(0, 3, 1, 2)
      expected = original_ddim(weights, x_nchw, torch.from_numpy(t - 1), heights_with_attention=(16,))
    output = apply(loaded.variables, jnp.asarray(x), t)
    assert relative(output, expected.permute(0, 2, 3, 1).numpy()) < 2e-5


def test_convert_writes_a_pipeline_and_reports_the_round_trip(pair, tmp_path, capsys):
  pytest.importorskip("tyro")
  from experiments import convert

  folder, network = pair
  convert.main(convert.parse([str(folder), str(tmp_path / "out")]))
  report = capsys.readouterr().out
  assert "largest difference after a round trip 0" in report
  assert "down_0_block_0/conv1/kernel" in report and "down_blocks.0.resnets.0.conv1.weight" in report
  again = diffusers.DDIMPipeline.from_pretrained(tmp_path / "out").unet.state_dict()
  for key, value in network.state_dict().items():
    np.testing.assert_array_equal(value.numpy(), again[key].numpy())
  with pytest.raises(ValueError, match="not an empty folder"):
    convert.main(convert.parse([str(folder), str(tmp_path / "out")]))
