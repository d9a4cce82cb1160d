"""Files of the original DDIM code: against its forward pass in torch, with random weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ddim_jax
from ddim_jax import interop

torch = pytest.importorskip("torch", reason="parity is measured against torch")
from tests.parity import ddim_weights, relative  # noqa: E402


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


@pytest.mark.slow
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


@pytest.mark.parametrize(
  ("values", "message"),
  [
    (
      {"a.weight": torch.zeros(3)},
      r"odd\.ckpt holds no weights of the DDIM network, nor of guided-diffusion",
    ),
    ([{"conv_in.weight": torch.zeros(3)}], r"odd\.ckpt has no averaged weights: .* ema 0"),
  ],
)
def test_a_file_of_something_else_is_refused_by_its_name(tmp_path, values, message):
  torch.save(values, tmp_path / "odd.ckpt")
  with pytest.raises(ValueError, match=message):
    ddim_jax.load(tmp_path / "odd.ckpt")
