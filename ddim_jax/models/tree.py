"""A model as a pytree of parameters and schedule, so that it can be an argument of a jitted function."""

from typing import Any

import jax


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
