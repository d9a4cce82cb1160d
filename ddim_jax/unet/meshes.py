"""Networks on arrays that lie on a mesh with explicit axes."""

from typing import Any

import flax.linen as nn
import jax


def is_explicit(x: jax.Array) -> bool:
  """Whether an array lies on such a mesh; within ``vmap`` none of the axes that are left may be sharded."""
  return jax.sharding.AxisType.Explicit in jax.typeof(x).sharding.mesh.axis_types


def with_automatic_axes(network: nn.Module, x_t: jax.Array, *arguments: Any) -> jax.Array:
  """A bound network applied to images ``[B, H, W, C]`` on such a mesh: JAX finds the layouts within.

  Args:
    network: The module; its output is laid out as its input is, but for the channels.
    x_t: The images.
    *arguments: What else it is called with.
  """
  alone, variables = network.unbind()
  given = jax.typeof(x_t).sharding
  where = jax.NamedSharding(given.mesh, jax.P(*given.spec[:3]))
  static = {i: value for i, value in enumerate(arguments) if isinstance(value, bool)}
  traced = {i: value for i, value in enumerate(arguments) if i not in static}

  def apply(variables: Any, x_t: jax.Array, traced: dict[int, Any]) -> Any:
    every = traced | static
    return alone.apply(variables, x_t, *(every[i] for i in range(len(arguments))))

  output: jax.Array = jax.sharding.auto_axes(apply, out_sharding=where)(variables, x_t, traced)
  return output
