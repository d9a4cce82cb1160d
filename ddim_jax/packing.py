"""Many small arrays as a few vectors: a network's parameters as one array instead of hundreds.

An optimiser, a moving average and a test for finite values treat every number alike. On vectors each of them
is one operation; on a tree it is one for every array, which on an accelerator costs more than the arithmetic.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np


class Layout(NamedTuple):
  """How vectors stand for a tree.

  Attributes:
    structure: The tree.
    shapes: Shape of each leaf.
    dtypes: Type of each leaf; leaves of a type lie in one vector, in the order of the tree.
  """

  structure: Any
  shapes: tuple[tuple[int, ...], ...]
  dtypes: tuple[Any, ...]


class Packed(flax.struct.PyTreeNode):
  """A tree of arrays as one vector for each dtype; made by `pack`.

  It is a pytree itself, whose leaves are the vectors. Functions that treat all numbers alike, ``optax.adam``
  and ``optax.clip_by_global_norm`` among them, do the same to it as to the tree; one that looks at names,
  shapes or single arrays needs the tree (`unpack`).

  Attributes:
    vectors: One for each dtype of the tree, ``[n]``.
    layout: Names, shapes and types of the arrays. Static.
  """

  vectors: tuple[jax.Array | np.ndarray, ...]
  layout: Layout = flax.struct.field(pytree_node=False)


def _is_packed(node: Any) -> bool:
  return isinstance(node, Packed)


def pack(tree: Any) -> Packed:
  """The tree's arrays, one after the other, as one vector for each dtype. NumPy arrays stay on the host.

  Raises:
    ValueError: If there are no arrays.
  """
  leaves, structure = jax.tree.flatten(tree)
  if not leaves:
    raise ValueError("there is nothing to pack: the tree has no arrays")
  joined = np.concatenate if all(isinstance(leaf, np.ndarray) for leaf in leaves) else jnp.concatenate
  dtypes = tuple(leaf.dtype for leaf in leaves)
  of_type = lambda wanted: [leaf.reshape(-1) for leaf in leaves if leaf.dtype == wanted]
  vectors = tuple(joined(of_type(wanted)) for wanted in dict.fromkeys(dtypes))
  return Packed(vectors, Layout(structure, tuple(leaf.shape for leaf in leaves), dtypes))


def unpack(tree: Any) -> Any:
  """The tree with every `Packed` in it as the tree it stands for; one without any is returned as it is.

  Differentiable: gradients arrive as one vector. Of vectors on the host the arrays are views.
  """
  return jax.tree.map(lambda node: _unpacked(node) if _is_packed(node) else node, tree, is_leaf=_is_packed)


def _unpacked(packed: Packed) -> Any:
  structure, shapes, dtypes = packed.layout
  if isinstance(packed.vectors[0], jax.ShapeDtypeStruct):
    return jax.tree.unflatten(structure, map(jax.ShapeDtypeStruct, shapes, dtypes))
  parts: dict[Any, Iterator[Any]] = {}
  for vector, wanted in zip(packed.vectors, dict.fromkeys(dtypes), strict=True):
    sizes = [math.prod(shape) for shape, dtype in zip(shapes, dtypes, strict=True) if dtype == wanted]
    on_host = isinstance(vector, np.ndarray)
    parts[wanted] = iter(np.split(vector, np.cumsum(sizes)[:-1]) if on_host else jax.lax.split(vector, sizes))
  leaves = [next(parts[dtype]).reshape(shape) for shape, dtype in zip(shapes, dtypes, strict=True)]
  return jax.tree.unflatten(structure, leaves)


def pack_like(template: Any, tree: Any) -> Any:
  """The inverse of `unpack`: ``tree`` with `Packed` wherever ``template`` has it."""
  repack = lambda node, below: pack(below) if _is_packed(node) else below
  return jax.tree.map(repack, template, tree, is_leaf=_is_packed)
