"""Networks of diffusers and of the original DDIM code with random weights, and their outputs."""

import json

import diffusers
import jax
import numpy as np
import torch

import ddim_jax

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
  if not isinstance(scheduler, diffusers.DDIMScheduler):  # DDIMPipeline converts what it is given
    scheduler.save_pretrained(folder / "scheduler")
    index = json.loads((folder / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", type(scheduler).__name__]
    (folder / "model_index.json").write_text(json.dumps(index))
  return network


def relative(a, b):
  return np.linalg.norm(np.asarray(a) - np.asarray(b)) / np.linalg.norm(b)


def torch_output(network, x, t, labels=None):
  """Their output for our images and levels, NHWC."""
  with torch.no_grad():
    x = torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
    labels = None if labels is None else torch.from_numpy(labels)
    return network(x, torch.from_numpy(t - 1), labels).sample.numpy().transpose(0, 2, 3, 1)


def our_images(pretrained, S, x_T, key):
  """What may differ between calls is an argument, so that their programs are the same and compile once."""

  @jax.jit
  def draw(variables, schedule, key, x_T, ts):
    denoise = pretrained.denoiser(variables, schedule)
    return ddim_jax.sample(key, denoise, schedule, x_T, ts, solver=pretrained.solver)[0]

  ts = pretrained.timesteps(S)
  return np.asarray(draw(pretrained.variables, pretrained.schedule, key, x_T, ts))


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
