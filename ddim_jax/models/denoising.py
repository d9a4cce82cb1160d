"""A model as a denoiser: with its labels, guidance and clipping."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from ddim_jax.denoisers import Denoiser, as_denoiser
from ddim_jax.guidance import guide
from ddim_jax.models import tables
from ddim_jax.models.classes import Label
from ddim_jax.models.conditions import Condition

if TYPE_CHECKING:
  from ddim_jax.models.model import Model


def is_guided(guidance: Any) -> bool:
  """Whether a guidance weight has an effect: anything but None and the number 1."""
  return guidance is not None and not (isinstance(guidance, (int, float)) and guidance == 1)


def _network(model: "Model", numbers: Any, vectors: Any, predict: str = "apply") -> Any:
  """The model's network as ``(x_t, t) -> output`` of its method ``predict``, with labels and conditions."""
  if model.params is None:
    raise ValueError("this model has no parameters: train it with ddim_jax.runs.fit")
  # What is an array already stays the same object: by that a loop knows that two calls take the same weights.
  array = lambda leaf: leaf if isinstance(leaf, jax.Array) else jnp.asarray(leaf)
  params, apply = jax.tree.map(array, model.params), getattr(model, predict)

  def network(x: jax.Array, t: jax.Array) -> jax.Array:
    given = model.null_label if numbers is None else numbers
    labels = None if given is None else jnp.broadcast_to(jnp.asarray(given, jnp.int32), x.shape[:1])
    if model.conditions is None:
      return apply(params, x, t, labels, None, None)
    given = jnp.full(model.condition_size, jnp.nan) if vectors is None else jnp.asarray(vectors)
    each = jnp.broadcast_to(jnp.atleast_2d(given), (x.shape[0], model.condition_size))
    return apply(params, x, t, labels, None, each)

  return network


def variance(
  model: "Model", label: Label | None, condition: Condition | None
) -> Callable[[jax.Array, Any], jax.Array]:
  """See `Model.variance`."""
  if not model.predicts_variance:
    raise ValueError(tables.NO_VARIANCE)
  network = _network(model, model.labels(label), model.vectors(condition), "outputs")
  return lambda x, t: network(x, t)[..., x.shape[-1] :]


def denoiser(
  model: "Model", label: Label | None, condition: Condition | None, guidance: float | jax.Array, clip: bool
) -> Denoiser:
  """See `Model.denoiser`."""
  numbers, vectors = model.labels(label), model.vectors(condition)

  def under(numbers: Any, vectors: Any) -> Denoiser:
    return as_denoiser(_network(model, numbers, vectors), model.schedule, model.parameterisation)

  denoise = under(numbers, vectors)
  if is_guided(guidance):
    unconditional = not model.classes and model.conditions is None
    if unconditional or (model.classes and model.null_label is None):
      raise ValueError(
        "guidance needs a conditional model that was also trained without labels; this one was not. One"
        " that comes along: fashion_mnist_classes"
      )
    denoise = guide(denoise, under(None, None), model.schedule, guidance)
  return model.restrict(denoise, model.schedule) if clip and model.scaling.bounded else denoise
