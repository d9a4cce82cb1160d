"""The networks of the papers, and their training step and sampler as programs to compile."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

import ddim_jax
from ddim_jax import training
from ddim_jax.packing import pack
from experiments.bench import measure
from experiments.bench.train import update

AXIS = "devices"
Published = Literal["cifar10", "celeba64", "lsun256", "tiny"]
Kind = Literal["train", "sample"]


class Network(NamedTuple):
  """A network and what it is usually given.

  Attributes:
    title: For people.
    options: Of `ddim_jax.UNet`.
    size: Height and width of an image.
    batch: Images a device.
    channels: Base width.
  """

  title: str
  options: dict[str, Any]
  size: int
  batch: int
  channels: int = 128


NETWORKS: dict[str, Network] = {
  "cifar10": Network("CIFAR-10, 32 x 32", {}, 32, 128),
  "celeba64": Network("CelebA, 64 x 64", {"multipliers": (1, 2, 2, 2, 4)}, 64, 32),
  "lsun256": Network(
    "LSUN and CelebA-HQ, 256 x 256", {"multipliers": (1, 1, 2, 2, 4, 4), "dropout": 0.0}, 256, 4
  ),
  "tiny": Network("8 x 8, for tests", {"multipliers": (1, 1), "attention": (), "groups": 4}, 8, 8, 8),
}
_STEPS = 10


def training_step(
  model: ddim_jax.UNet, axis_name: str | None = None
) -> tuple[Callable[..., Any], Callable[[Any], training.TrainState]]:
  """``(step, create)``: a step of training as the paper trains, and ``params -> state`` that it begins with.

  The step is ``(state, key, images, labels) -> (state, metrics)``, see `training.make_train_step`.
  """
  optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(2e-4))
  step = update(model, ddim_jax.linear_schedule(), optimizer, training.constant_decay(0.9999), axis_name)
  return step, lambda params: training.create_state(pack(params), optimizer)


def _shaped(*shape: int, dtype=jnp.float32) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(shape, dtype)


def parameters(model: ddim_jax.UNet, size: int) -> Any:
  """Shapes of a network's parameters."""
  key = jax.eval_shape(lambda: jax.random.key(0))
  return jax.eval_shape(model.init, key, _shaped(1, size, size, 3), _shaped(dtype=jnp.int32))["params"]


def lowered(kind: Kind, model: ddim_jax.UNet, size: int, batch: int, devices: list[Any]) -> Any:
  """A program lowered for devices, with ``batch`` images for each of them.

  "train" is a training step, split over the devices as `jax.pmap` does it: its state is donated. "sample" is
  DDIM with ten steps, clipped, each device with images of its own.
  """
  mesh = jax.sharding.Mesh(devices, (AXIS,))
  whole, split = (jax.NamedSharding(mesh, jax.P(*axes)) for axes in ((), (AXIS,)))
  key, params = jax.eval_shape(lambda: jax.random.key(0)), parameters(model, size)
  images = _shaped(batch * len(devices), size, size, 3)
  if kind == "train":
    step, create = training_step(model, AXIS)
    mapped = jax.shard_map(
      step, mesh=mesh, in_specs=(jax.P(), jax.P(), jax.P(AXIS), jax.P(AXIS)), out_specs=jax.P(),
      check_vma=False,
    )  # fmt: skip
    labels = _shaped(images.shape[0], dtype=jnp.int32)
    program = jax.jit(
      mapped, in_shardings=(whole, whole, split, split), out_shardings=whole, donate_argnums=0
    )
    return program.lower(jax.eval_shape(create, params), key, images, labels)

  def draw(params, schedule, key, x_T, ts):
    network = lambda x, t: model.apply({"params": params}, x, t)
    denoise = ddim_jax.clip_x0(ddim_jax.as_denoiser(network, schedule), schedule)
    return ddim_jax.sample(key, denoise, schedule, x_T, ts)[0]

  program = jax.jit(draw, in_shardings=(whole, whole, whole, split, whole), out_shardings=split)
  levels = _shaped(_STEPS + 1, dtype=jnp.int32)
  return program.lower(params, jax.eval_shape(ddim_jax.linear_schedule), key, images, levels)


def gflop(kind: Kind, model: ddim_jax.UNet, size: int, batch: int) -> float:
  """GFLOP of a training step, or of a step of sampling, with direct convolutions, by XLA's count of the
  program as written: it does not depend on what is compiled for."""
  model, params = model.clone(conv="direct"), parameters(model, size)
  images = _shaped(batch, size, size, 3)
  if kind == "sample":
    return measure.gflop(model, {"params": params}, images, _shaped(dtype=jnp.int32))
  step, create = training_step(model)
  key, labels = jax.eval_shape(lambda: jax.random.key(0)), _shaped(batch, dtype=jnp.int32)
  cost: Any = jax.jit(step).lower(jax.eval_shape(create, params), key, images, labels).cost_analysis()
  return cost["flops"] / 1e9
