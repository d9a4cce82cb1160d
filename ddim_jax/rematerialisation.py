"""Activations computed again for the backward pass instead of kept: less memory for more time."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def recomputed(f: Callable) -> Callable:
  """``f``, nothing inside of which is kept for the backward pass: its arguments are, and it is run again.

  This is `jax.checkpoint`, except on a CPU. XLA's CPU compiler drops the barriers that keep the second run
  apart, finds that it has all of it already, and keeps that after all. There the second run is a branch of a
  conditional, into which it does not look, taken where the derivative of the output is below infinity: so
  that it also waits for that derivative. Else all derivatives are NaN. Only reverse mode works there.

  Args:
    f: ``(params, x, condition, *others) -> array``, differentiable in its first three arguments.
  """
  return _conditional(f) if jax.default_backend() == "cpu" else jax.checkpoint(f)


def _conditional(f):
  def forward(*args):
    return f(*args), args

  def backward(args, derivative):
    inner, others = args[:3], args[3:]

    def run_again():
      _, back = jax.vjp(lambda *values: f(*values, *others), *inner)
      return back(derivative)

    reached = derivative.ravel()[0] < jnp.inf
    nans = lambda: jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), inner)
    return *jax.lax.cond(reached, run_again, nans), *(None for _ in others)

  again = jax.custom_vjp(f)
  again.defvjp(forward, backward)
  return again
