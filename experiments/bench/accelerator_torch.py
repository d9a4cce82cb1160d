"""The side of torch and diffusers of `experiments.bench.accelerator`, a process of its own.

The network is diffusers' ``UNet2DModel``; around it is less than ``DDIMPipeline`` does: nothing leaves the
device between steps, and what is compiled is the network together with DDIM's step, or with the loss. Sides:

    TF32                                  as it comes, convolutions and products in TF32
    TF32, channels_last                   the layout that cuDNN prefers
    bfloat16, channels_last               sampling with weights in bfloat16, training with autocast
    ... , compiled                        torch.compile
    ... , CUDA graphs                     torch.compile(mode="reduce-overhead")

cuDNN tries its algorithms (``benchmark``), and Adam is the fused one.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from diffusers import UNet2DModel

from experiments.bench import sides

_DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
_LEVELS = 1000


def _wait() -> None:
  if _DEVICE == "cuda":
    torch.cuda.synchronize()


def _network(given: sides.Row, side: str) -> Any:
  unet: Any = UNet2DModel.from_pretrained(sides.folder(given), subfolder="unet").to(_DEVICE)
  return unet.to(memory_format=torch.channels_last) if "channels_last" in side else unet


def _compiled(f: Callable[..., Any], side: str) -> Callable[..., Any]:
  if "CUDA graphs" in side:
    return torch.compile(f, mode="reduce-overhead")
  return torch.compile(f) if "compiled" in side else f


def _alpha_bar() -> torch.Tensor:
  return torch.cumprod(1 - torch.linspace(1e-4, 0.02, _LEVELS, dtype=torch.float64), 0)


def sample(given: sides.Row, batch_size: int, side: str) -> sides.Row:
  """DDIM with eta 0 and clipping, milliseconds an image and step."""
  unet, steps = _network(given, side).eval(), given["steps"]
  dtype = torch.bfloat16 if "bfloat16" in side else torch.float32
  unet = unet.to(dtype)
  size = unet.config.sample_size
  levels = torch.arange(steps).flip(0) * (_LEVELS // steps)
  alpha_bar = _alpha_bar()
  now = alpha_bar[levels]
  after = torch.cat([alpha_bar[levels[1:]], torch.ones(1, dtype=torch.float64)])
  table = torch.stack([now.sqrt(), (1 - now).sqrt(), after.sqrt(), (1 - after).sqrt()], 1).float().to(_DEVICE)
  ts = [torch.full((batch_size,), int(level), device=_DEVICE) for level in levels]
  rows = [row.clone() for row in table]
  x_T = torch.randn(batch_size, unet.config.in_channels, size, size, device=_DEVICE)
  if "channels_last" in side:
    x_T = x_T.to(memory_format=torch.channels_last)

  def step(x, t, row):
    eps = unet(x.to(dtype), t).sample.float()
    x0 = ((x - row[1] * eps) / row[0]).clamp(-1, 1)
    return row[2] * x0 + row[3] * eps

  advance, graphs = _compiled(step, side), "CUDA graphs" in side

  def draw():
    x = x_T
    with torch.no_grad():
      for t, row in zip(ts, rows, strict=True):
        if graphs:
          torch.compiler.cudagraph_mark_step_begin()
        x = advance(x, t, row)
        if graphs:  # the next replay writes over it
          x = x.clone()
    _wait()

  return sides.timed(draw, given["rounds"], work=batch_size * steps, before=2)


def train(given: sides.Row, batch_size: int, side: str) -> sides.Row:
  """A training step as `ddim_jax.training` makes it, milliseconds: noise, loss, gradient, clipping, Adam,
  average."""
  unet, many = _network(given, side).train(), given["updates"]
  size, channels = unet.config.sample_size, unet.config.in_channels
  images = torch.rand(batch_size, channels, size, size, device=_DEVICE) * 2 - 1
  if "channels_last" in side:
    images = images.to(memory_format=torch.channels_last)
  alpha_bar = _alpha_bar().float().to(_DEVICE)
  parameters = list(unet.parameters())
  average = [p.detach().clone() for p in parameters]
  optimizer = torch.optim.Adam(parameters, lr=2e-4, fused=True)
  half, graphs = "bfloat16" in side, "CUDA graphs" in side

  def loss(images, eps, t):
    a = alpha_bar[t][:, None, None, None]
    with torch.autocast(_DEVICE, torch.bfloat16, enabled=half):
      output = unet(a.sqrt() * images + (1 - a).sqrt() * eps, t).sample
    return torch.mean((output.float() - eps) ** 2)

  compute = _compiled(loss, side)

  def call():
    for _ in range(many):
      if graphs:
        torch.compiler.cudagraph_mark_step_begin()
      t = torch.randint(0, _LEVELS, (batch_size,), device=_DEVICE)
      compute(images, torch.randn_like(images), t).backward()
      torch.nn.utils.clip_grad_norm_(parameters, 1.0)
      optimizer.step()
      optimizer.zero_grad(set_to_none=True)
      with torch.no_grad():
        torch._foreach_lerp_(average, parameters, 1 - 0.9999)
    _wait()

  return sides.timed(call, given["rounds"], work=many)


def main() -> None:
  """Does the tasks of the command line."""
  given = sides.settings()
  torch.set_float32_matmul_precision("high")
  torch.backends.cudnn.allow_tf32 = True
  torch.backends.cudnn.benchmark = True
  torch.manual_seed(0)

  def task(part, case, side):
    row = {"sample": sample, "train": train}[part](given, int(case), side)
    torch.compiler.reset()
    if _DEVICE == "cuda":
      torch.cuda.empty_cache()
    return row

  name = torch.cuda.get_device_name() if _DEVICE == "cuda" else "cpu"
  sides.serve({"torch": lambda: {"device": name, "torch": str(torch.__version__)}})
  sides.serve({name: partial(task, *name.split("/")) for name in given["tasks"]})


if __name__ == "__main__":
  main()
