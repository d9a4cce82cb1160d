"""A model as a denoiser: with its labels, guidance and clipping."""

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from ddim_jax.denoisers import Denoiser, as_denoiser
from ddim_jax.guidance import guide
from ddim_jax.models.classes import Label

if TYPE_CHECKING:
  from ddim_jax.models.model import Model


def is_guided(guidance: Any) -> bool:
  """Whether a guidance weight has an effect: anything but None and the number 1."""
  return guidance is not None and not (isinstance(guidance, (int, float)) and guidance == 1)


def denoiser(model: "Model", label: Label | None, guidance: float | jax.Array, clip: bool) -> Denoiser:
  """See `Model.denoiser`."""
  if model.params is None:
    raise ValueError("this model has no parameters: train it with ddim_jax.runs.fit")
  params, numbers = jax.tree.map(jnp.asarray, model.params), model.labels(label)

  def under(numbers: Any) -> Denoiser:
    def network(x: jax.Array, t: jax.Array) -> jax.Array:
      given = model.null_label if numbers is None else numbers
      labels = None if given is None else jnp.broadcast_to(jnp.asarray(given, jnp.int32), x.shape[:1])
      return model.apply(params, x, t, labels)

    return as_denoiser(network, model.schedule, model.parameterisation)

  denoise = under(numbers)
  if is_guided(guidance):
    if model.null_label is None:
      raise ValueError(
        "guidance needs a conditional model that was also trained without labels; this one was not. One"
        " that comes along: fashion_mnist_classes"
      )
    denoise = guide(denoise, under(None), model.schedule, guidance)
  return model.restrict(denoise, model.schedule) if clip else denoise
