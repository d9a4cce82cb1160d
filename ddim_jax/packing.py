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
    dtypes: Type of each leaf.
    groups: Number of the vector in which each leaf lies; those of a vector lie in the order of the tree.
  """

  structure: Any
  shapes: tuple[tuple[int, ...], ...]
  dtypes: tuple[Any, ...]
  groups: tuple[int, ...]


class Packed(flax.struct.PyTreeNode):
  """A tree of arrays as a few vectors; made by `pack`.

  It is a pytree itself, whose leaves are the vectors. Functions that treat all numbers alike, ``optax.adam``
  and ``optax.clip_by_global_norm`` among them, do the same to it as to the tree; one that looks at names,
  shapes or single arrays needs the tree (`unpack`).

  Attributes:
    vectors: One for each dtype of the tree, and for each array that lies alone, ``[n]``.
    layout: Names, shapes and types of the arrays. Static.
  """

  vectors: tuple[jax.Array | np.ndarray, ...]
  layout: Layout = flax.struct.field(pytree_node=False)


def _is_packed(node: Any) -> bool:
  return isinstance(node, Packed)


def pack(tree: Any, alone: int | None = None) -> Packed:
  """The tree's arrays, one after the other, as one vector for each dtype. NumPy arrays stay on the host.

  Args:
    tree: Any tree of arrays.
    alone: Arrays of more elements than this are vectors of their own, which costs no copy when they are used.

  Raises:
    ValueError: If there are no arrays.
  """
  leaves, structure = jax.tree.flatten(tree)
  if not leaves:
    raise ValueError("there is nothing to pack: the tree has no arrays")
  lies_alone = lambda leaf: alone is not None and leaf.size > alone
  keys = [(leaf.dtype, i if lies_alone(leaf) else -1) for i, leaf in enumerate(leaves)]
  numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
  return _packed(leaves, structure, tuple(numbers[key] for key in keys))


def _packed(leaves: list[Any], structure: Any, groups: tuple[int, ...]) -> Packed:
  joined = np.concatenate if all(isinstance(leaf, np.ndarray) for leaf in leaves) else jnp.concatenate
  of_group = lambda number: [leaf for leaf, group in zip(leaves, groups, strict=True) if group == number]
  vectors = tuple(
    joined([leaf.reshape(-1) for leaf in of_group(number)]) for number in range(max(groups) + 1)
  )
  shapes, dtypes = tuple(leaf.shape for leaf in leaves), tuple(leaf.dtype for leaf in leaves)
  return Packed(vectors, Layout(structure, shapes, dtypes, groups))


def unpack(tree: Any) -> Any:
  """The tree with every `Packed` in it as the tree it stands for; one without any is returned as it is.

  Differentiable: gradients arrive as one vector. Of vectors on the host the arrays are views.
  """
  return jax.tree.map(lambda node: _unpacked(node) if _is_packed(node) else node, tree, is_leaf=_is_packed)


def _unpacked(packed: Packed) -> Any:
  structure, shapes, dtypes, groups = packed.layout
  if isinstance(packed.vectors[0], jax.ShapeDtypeStruct):
    return jax.tree.unflatten(structure, map(jax.ShapeDtypeStruct, shapes, dtypes))
  parts: list[Iterator[Any]] = []
  for number, vector in enumerate(packed.vectors):
    sizes = [math.prod(shape) for shape, group in zip(shapes, groups, strict=True) if group == number]
    on_host = isinstance(vector, np.ndarray)
    parts.append(iter(np.split(vector, np.cumsum(sizes)[:-1]) if on_host else jax.lax.split(vector, sizes)))
  leaves = [next(parts[group]).reshape(shape) for shape, group in zip(shapes, groups, strict=True)]
  return jax.tree.unflatten(structure, leaves)


def pack_like(template: Any, tree: Any) -> Any:
  """The inverse of `unpack`: ``tree`` with `Packed` wherever ``template`` has it, laid out as there."""

  def repack(node: Any, below: Any) -> Any:
    if not _is_packed(node):
      return below
    return _packed(jax.tree.leaves(below), node.layout.structure, node.layout.groups)

  return jax.tree.map(repack, template, tree, is_leaf=_is_packed)
