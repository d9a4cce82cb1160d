"""`jax.checkpoint` for XLA's CPU compiler: less memory in the backward pass for more time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def recomputed(f: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
  """``f``, of which the backward pass keeps the arguments only, and runs it again.

  XLA's CPU compiler drops the barriers by which `jax.checkpoint` keeps the second run apart from the first;
  it then finds that it has all of the second run already, and keeps that. Here the second run is a branch of
  a conditional, into which the compiler does not look, taken where the derivative of the output is below
  infinity, so that it also waits for that derivative. Otherwise all derivatives are NaN. Reverse mode only.

  Args:
    f: ``(params, x, condition, *others) -> array``, differentiable in its first three arguments.
  """

  def forward(*args: Any) -> tuple[Any, Any]:
    return f(*args), args

  def backward(args: Any, derivative: jax.Array) -> tuple[Any, ...]:
    inner, others = args[:3], args[3:]

    def run_again() -> Any:
      _, back = jax.vjp(lambda *values: f(*values, *others), *inner)
      return back(derivative)

    reached = derivative.ravel()[0] < jnp.inf
    nans = lambda: jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), inner)
    return *jax.lax.cond(reached, run_again, nans), *(None for _ in others)

  again = jax.custom_vjp(f)
  again.defvjp(forward, backward)
  return again
