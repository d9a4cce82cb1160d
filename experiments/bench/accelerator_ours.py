"""This project's side of `experiments.bench.accelerator`, a process of its own: see `sides`."""

import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ddim_jax import interop
from ddim_jax.commands import cli
from ddim_jax.models.config import Network
from experiments.bench import noise, peers, programs, sides
from experiments.bench.sample import sampler


def product(given: sides.Row) -> sides.Row:
  """The rate of a large bfloat16 product of matrices."""
  size = given["product"]
  a = jnp.ones((size, size), jnp.bfloat16)
  multiply = jax.jit(jnp.matmul)

  def call():
    x = a
    for _ in range(10):
      x = multiply(x, a)
    x.block_until_ready()

  row = sides.timed(call, given["rounds"], work=10)
  return row | {"size": size, "tflop_per_second": round(2e-9 * size**3 / row["milliseconds"], 4)}


def _loaded(given: sides.Row, dtype: str) -> interop.Pretrained:
  pretrained = interop.load_diffusers(sides.folder(given))
  return pretrained._replace(
    model=pretrained.model.clone(dtype=jnp.dtype(dtype)), variables=jax.device_put(pretrained.variables)
  )


def sample(given: sides.Row, batch_size: int, dtype: str) -> sides.Row:
  """DDIM, milliseconds an image and step."""
  pretrained, steps = _loaded(given, dtype), given["steps"]
  program, ts = sampler(pretrained, steps), jnp.asarray(pretrained.timesteps(steps))
  x_T = jax.random.normal(jax.random.key(0), (batch_size, *peers.image_shape(pretrained)))
  draw = lambda: program(pretrained.variables, pretrained.schedule, x_T, ts).block_until_ready()
  return sides.timed(draw, given["rounds"], work=batch_size * steps)


def train(given: sides.Row, batch_size: int, dtype: str) -> sides.Row:
  """A training step, milliseconds."""
  pretrained = _loaded(given, dtype)
  step, create = programs.training_step(pretrained.model)
  update = jax.jit(step, donate_argnums=0)
  images = jax.random.uniform(
    jax.random.key(0), (batch_size, *peers.image_shape(pretrained)), minval=-1, maxval=1
  )
  labels, key = jnp.zeros(batch_size, jnp.int32), jax.random.key(1)
  state = jax.tree.map(jnp.copy, create(pretrained.variables["params"]))
  many = given["updates"]

  def call():
    nonlocal state
    for _ in range(many):
      state, _ = update(state, key, images, labels)
    jax.block_until_ready(state)

  return sides.timed(call, given["rounds"], work=many)


def first_step(given: sides.Row, batch_size: int) -> sides.Row:
  """Seconds from the command to the first training step of the preset, on images of noise: the parts of the
  training program without data set, folder and log; and the steps after it."""
  small = Network(**given["model"]) if "model" in given else None
  state, make_batch, update = noise.prepare(given["preset"], batch_size, network=small)
  many = given["updates"]

  def call(number):
    nonlocal state
    for i in range(number):
      state, metrics = update(state, make_batch(i))
    jax.block_until_ready((state, metrics))

  call(1)
  seconds = time.time() - given["began"]
  row = sides.timed(lambda: call(many), given["rounds"], work=many, before=0)
  return {"seconds": round(seconds, 2), "preset": given["preset"], "milliseconds_a_step": row["milliseconds"]}


def parity(given: sides.Row, what: str) -> sides.Row:
  """Output or gradient of the network here, in three precisions, against a CPU in float32.

  Returns:
    Root mean square and largest difference, as fractions of the root mean square of the reference.
  """
  pretrained = interop.load_diffusers(sides.folder(given))
  size = given["parity_batch"]
  x = np.random.default_rng(0).standard_normal((size, *peers.image_shape(pretrained)), np.float32)
  t = np.linspace(1, 900, size, dtype=np.int32)

  def compute(model, precision, device, **options):
    def output(variables, x, t):
      y: Any = model.apply(variables, x, t)
      return y.astype(jnp.float32)

    loss = lambda variables, x, t: jnp.mean(output(variables, x, t) ** 2)
    f = jax.jit(output if what == "output" else jax.grad(loss), **options)
    with jax.default_matmul_precision(precision):
      result = f(*jax.device_put((pretrained.variables, x, t), device))
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in jax.tree.leaves(result)])

  # It runs once: what XLA's CPU compiler would gain is less than it takes.
  hasty = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
  direct = pretrained.model.clone(conv="direct")
  expected = compute(direct, "highest", jax.devices("cpu")[0], compiler_options=hasty)
  scale, here = float(np.sqrt(np.mean(expected**2))), jax.devices()[0]
  settings = {
    "float32, highest": (jnp.float32, "highest"),
    "float32, default (TF32 on a GPU)": (jnp.float32, "default"),
    "bfloat16": (jnp.bfloat16, "default"),
  }
  table = {}
  for name, (dtype, precision) in settings.items():
    difference = compute(pretrained.model.clone(dtype=dtype), precision, here) - expected
    table[name] = {
      "relative_rms": float(f"{np.sqrt(np.mean(difference**2)) / scale:.3g}"),
      "relative_largest": float(f"{np.abs(difference).max() / scale:.3g}"),
    }
  return table


def _do(given: sides.Row, part: str, case: str, side: str) -> sides.Row:
  dtype = "bfloat16" if "bfloat16" in side else "float32"
  if part == "product":
    return product(given)
  if part == "start":
    return first_step(given, given["preset_batch"])
  if part == "parity":
    return parity(given, case)
  return (sample if part == "sample" else train)(given, int(case), dtype)


def main() -> None:
  """Does the tasks of the command line."""
  given = sides.settings()
  cli.prepare(given["preset_batch"])
  sides.serve({"machine": lambda: {"device": jax.devices()[0].device_kind, "jax": jax.__version__}})
  sides.serve({name: partial(_do, given, *name.split("/")) for name in given["tasks"]})


if __name__ == "__main__":
  main()
