"""Means over devices."""

from typing import Any

import jax
from jax.flatten_util import ravel_pytree

_SMALL = 2**16
"""Elements of an array that travels with others: fewer meetings are worth more than the copy."""


def mean(tree: Any, axis_name: str) -> Any:
  """``jax.lax.pmean`` of a tree of floating-point arrays, with the many small ones of a network as one.

  The devices of a CPU meet once for each array, which costs about 0.1 ms each time.
  """
  leaves, structure = jax.tree.flatten(tree)
  small = [leaf.size <= _SMALL for leaf in leaves]
  vector, split = ravel_pytree([leaf for leaf, is_small in zip(leaves, small, strict=True) if is_small])
  large = [leaf for leaf, is_small in zip(leaves, small, strict=True) if not is_small]
  vector, large = jax.lax.pmean((vector, large), axis_name)
  rest = {True: iter(split(vector)), False: iter(large)}
  return jax.tree.unflatten(structure, [next(rest[is_small]) for is_small in small])
