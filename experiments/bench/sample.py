"""Sampling against diffusers with the same weights and noise: ``python -m experiments.bench sample``."""

import copy
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import ddim_jax
from ddim_jax import interop
from ddim_jax.models.drawing import by_example, everywhere
from experiments.bench import measure, peers

_OURS, _ALONE = "ddim_jax", "ddim_jax, S bare network calls"


def sampler(pretrained: interop.Pretrained, steps: int):
  """``(variables, schedule, x_T, ts) -> x_0``, jitted, with the habits of DDIMScheduler."""
  ours = interop.like_diffusers(pretrained, steps)

  @jax.jit
  def program(variables, schedule, x_T, ts):
    network = lambda x, t: ours.model.apply(variables, x, t)
    denoise = ours.restrict(ddim_jax.as_denoiser(network, schedule, ours.parameterisation), schedule)
    return ddim_jax.sample(jax.random.key(0), denoise, schedule, x_T, ts, solver=ours.solver)[0]

  return program


def nhwc(images) -> np.ndarray:
  """torch's ``[B, C, H, W]`` as ours, ``[B, H, W, C]``."""
  return images.numpy().transpose(0, 2, 3, 1)


def pixels(x_0) -> np.ndarray:
  """Images in [0, 1], as DDIMPipeline makes them."""
  return np.clip(np.asarray(x_0) / 2 + 0.5, 0, 1)


def difference_of_steps(pipe, pretrained: interop.Pretrained, steps: int, noise) -> float:
  """Largest difference, as fractions of white, between one step of ours and one of theirs, over their chain.

  Whole chains of random weights cannot be compared: they are chaotic, so that two summation orders of torch
  itself end in different images.
  """
  import torch

  program, scheduler, x = sampler(pretrained, steps), pipe.scheduler, noise
  scheduler.set_timesteps(steps)
  ts, largest = np.asarray(pretrained.timesteps(steps)), 0.0
  for t, *pair in zip(scheduler.timesteps, ts[:-1], ts[1:], strict=True):
    x_t = jnp.asarray(nhwc(x))
    ours = program(pretrained.variables, pretrained.schedule, x_t, jnp.asarray(pair))
    with torch.no_grad():
      x = scheduler.step(pipe.unet(x, t).sample, t, x).prev_sample
    largest = max(largest, float(np.abs(np.asarray(ours) - nhwc(x)).max()) / 2)
  return largest


def sample(
  network: peers.Network = "cifar10",
  batch_size: int = 8,
  steps: int = 10,
  rounds: int = 5,
  compiled: bool = True,
  out: Path = measure.OUT,
) -> None:
  """DDIM with eta 0 against DDIMPipeline in several settings, compared step by step before anything is timed.

  Args:
    network: Which network: fashion_mnist has trained weights, the others random ones.
    batch_size: Images a call.
    steps: Steps S.
    rounds: How often each side is measured, in turn.
    compiled: Also measure torch.compile; needs a C++ compiler and a minute or two.
    out: Folder for the JSON and the chart.
  """
  measure.positive(batch_size=batch_size, steps=steps, rounds=rounds)
  import torch

  eager, loaded = peers.both(network)
  height, width, channels = peers.image_shape(loaded)
  noise = torch.randn(batch_size, channels, height, width, generator=torch.Generator().manual_seed(1))
  sharing = by_example(batch_size)
  x_T = jax.device_put(nhwc(noise), sharing)
  ts = jnp.asarray(loaded.timesteps(steps))
  variables, program = jax.device_put(loaded.variables, everywhere(sharing)), sampler(loaded, steps)
  bare = jax.jit(loaded.model.apply)

  def network_alone():
    x = x_T
    for t in ts[:-1]:
      x = bare(variables, x, t)
    jax.block_until_ready(x)

  def torch_side(change, half=False):
    pipe = copy.deepcopy(eager)
    pipe.set_progress_bar_config(disable=True)
    pipe.unet = change(pipe.unet)

    def run():
      generator = torch.Generator().manual_seed(1)
      with torch.autocast("cpu", torch.bfloat16, enabled=half):
        return pipe(batch_size, generator, num_inference_steps=steps, output_type="np").images

    return run

  last = lambda unet: unet.to(memory_format=torch.channels_last)
  sides: measure.Sides = {
    _OURS: lambda: pixels(program(variables, loaded.schedule, x_T, ts)),
    "diffusers, eager": torch_side(lambda unet: unet),
    "diffusers, channels_last": torch_side(last),
    "diffusers, channels_last, bfloat16": torch_side(last, half=True),
  }
  if compiled:
    sides["diffusers, channels_last, compiled"] = torch_side(lambda unet: torch.compile(last(unet)))
  step_difference = difference_of_steps(eager, loaded, steps, noise[:2])
  if step_difference > 1e-4:
    raise ValueError(f"every step must agree with diffusers' to 1e-4, got {step_difference:.2g}")
  expected = sides["diffusers, eager"]()
  differences = {name: float(np.abs(side() - expected).max()) for name, side in sides.items()}

  work = steps * measure.gflop(loaded.model, variables, x_T, ts[0])
  results = measure.compare(sides | {_ALONE: network_alone}, rounds, batch_size, work, _OURS)
  for name, difference in differences.items():
    results["sides"][name]["largest_difference_of_images_from_eager"] = difference
  settings = {
    "network": network, "batch_size": batch_size, "steps": steps, "rounds": rounds,
    "torch": str(torch.__version__), "largest_difference_of_a_step": step_difference,
  }  # fmt: skip
  name = f"sample_{network}_b{batch_size}_s{steps}"
  label = f"seconds an image, {steps} steps"
  measure.report(name, settings | results, out, measure.times(results), label)
