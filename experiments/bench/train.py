"""A training step against torch: ``python -m experiments.bench train``."""

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

import ddim_jax
from ddim_jax import interop, training
from ddim_jax.cpu import heap
from ddim_jax.cpu.devices import lies_alone
from ddim_jax.packing import pack
from ddim_jax.runs.update import AXIS, on_every_device
from experiments.bench import measure, peers

_OURS = "ddim_jax"


def update(
  model,
  schedule: ddim_jax.Schedule,
  optimizer,
  decay: Callable[[jax.Array], jax.Array],
  axis_name: str | None = None,
):
  """``(state, key, images, labels) -> (state, metrics)``: a step of DDPM training with dropout."""

  def network(params, x_t, t, labels, keys):
    return model.apply({"params": params}, x_t, t, train=True, keys=keys)

  losses = training.example_losses(network, schedule)
  levels = training.uniform_levels(schedule.T)
  return training.make_train_step(losses, levels, optimizer, decay, axis_name=axis_name)


def per_device(batch_size: int) -> int:
  """Images a device.

  Raises:
    ValueError: If the devices cannot share the batch evenly.
  """
  devices = jax.local_device_count()
  if batch_size % devices:
    raise ValueError(f"--batch-size must be a multiple of the {devices} devices, got {batch_size}")
  return batch_size // devices


def stepper(pretrained: interop.Pretrained, batch_size: int):
  """``() -> loss``: one step of DDPM training over all devices: loss, gradient, clipping, Adam, average."""
  optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(2e-4))
  decay = training.constant_decay(0.9999)
  mapped = jax.pmap(
      update(pretrained.model, pretrained.schedule, optimizer, decay, AXIS), axis_name=AXIS,
      in_axes=(None, None, 0, 0), out_axes=(None, None), donate_argnums=0,
  )  # fmt: skip
  shape = (jax.local_device_count(), per_device(batch_size), *peers.image_shape(pretrained))
  images = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
  labels, key = np.zeros(shape[:2], np.int32), jax.random.key(0)
  params = pack(pretrained.variables["params"], alone=lies_alone())
  state = on_every_device(training.create_state(params, optimizer))
  state = jax.tree.map(jnp.copy, state)  # the same array twice cannot be donated

  def step():
    nonlocal state
    state, metrics = mapped(state, key, images, labels)
    jax.block_until_ready(state)
    return metrics["loss"]

  return step


def ours(folder: Path, batch_size: int) -> Callable[[], jax.Array]:
  """`stepper` of the network of a folder of diffusers, compiled, with the heap that training has."""
  step = stepper(interop.load_diffusers(folder), batch_size)
  step()
  heap.set_pieces_aside()
  return step


def train(
  network: peers.Network = "cifar10", batch_size: int = 8, rounds: int = 5, out: Path = measure.OUT
) -> None:
  """Forward, backward, clipping, Adam and the average of the parameters, against torch eager.

  Args:
    network: Which network, the weights of all sides being the same at first.
    batch_size: Images a step.
    rounds: How often each side, a process of its own, is measured, in turn.
    out: Folder for the JSON and the chart.
  """
  measure.positive(batch_size=batch_size, rounds=rounds)
  per_device(batch_size)
  import torch

  with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as stack:
    folder = peers.write(network, Path(place))
    elsewhere = lambda *side: stack.enter_context(measure.elsewhere(*side))
    sides: measure.Sides = {
      _OURS: elsewhere(ours, folder, batch_size),
      "torch, eager": elsewhere(peers.train_step, folder, batch_size),
      "torch, eager, channels_last": elsewhere(peers.train_step, folder, batch_size, True),
    }
    loaded = interop.load_diffusers(folder)
    x = np.zeros((batch_size, *peers.image_shape(loaded)), np.float32)
    # The two halves of the backward pass cost a forward pass each.
    work = 3 * measure.gflop(loaded.model, loaded.variables, x, np.int32(1))
    # The memory of a process reaches its size in the first few steps.
    results = measure.compare(sides, rounds, batch_size, work, _OURS, before=8)
  settings = {"network": network, "batch_size": batch_size, "rounds": rounds, "torch": torch.__version__}
  measure.report(
    f"train_{network}_b{batch_size}", settings | results, out, measure.times(results),
    "seconds an image of a training step",
  )  # fmt: skip
