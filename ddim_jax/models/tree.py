"""A model as a pytree of parameters and schedule: an argument of jitted functions; and the size of trees."""

from typing import Any

import jax
import numpy as np


def size(tree: Any) -> int:
  """How many numbers the arrays of a tree hold, or would: of shapes too."""
  return sum(int(np.size(leaf)) for leaf in jax.tree.leaves(tree))


class _Static:
  """What a compiled program depends on besides arrays: the same for copies with other parameters."""

  def __init__(self, model: Any):
    self.model = model
    functions = (model.network, model.restrict, model.inputs, *model.parameterisation)
    scaled = (model.scaling, model.conditions)
    solver = model.solver if isinstance(model.solver, str) else id(model.solver)
    self._key = (*map(id, functions), solver, model.shape, model.classes, model.null_label, *scaled)

  def __eq__(self, other: object) -> bool:
    return isinstance(other, _Static) and self._key == other._key

  def __hash__(self) -> int:
    return hash(self._key)


def register(kind: Any) -> None:
  """Tells JAX that `ddim_jax.models.Model`, which is ``kind``, is a pytree."""
  jax.tree_util.register_pytree_node(
    kind,
    lambda model: ((model.params, model.schedule), _Static(model)),
    lambda static, arrays: static.model.replace(params=arrays[0], schedule=arrays[1]),
  )
