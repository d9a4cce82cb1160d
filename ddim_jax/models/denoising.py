"""A model as a denoiser: with its labels, guidance and clipping."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from ddim_jax.checks import check_finite
from ddim_jax.denoisers import Denoiser, as_denoiser
from ddim_jax.guidance import guide
from ddim_jax.models.classes import Label
from ddim_jax.models.conditions import Condition

if TYPE_CHECKING:
  from ddim_jax.models.model import Model


def is_guided(guidance: Any) -> bool:
  """Whether a guidance weight has an effect: anything but None and the number 1."""
  return guidance is not None and not (isinstance(guidance, (int, float)) and guidance == 1)


Variance = Callable[[jax.Array, Any], jax.Array]
"""``(x_t, t) -> v``: what a network predicts of its variances, for `ddim_jax.ddpm`."""


def _network(model: "Model", numbers: Any, vectors: Any) -> Any:
  """All of the network's output as ``(x_t, t) -> output``, with labels and conditions."""
  params = jax.tree.map(jnp.asarray, model.params)

  def network(x: jax.Array, t: jax.Array) -> jax.Array:
    given = model.null_label if numbers is None else numbers
    labels = None if given is None else jnp.broadcast_to(jnp.asarray(given, jnp.int32), x.shape[:1])
    if model.conditions is None:
      return model.outputs(params, x, t, labels)
    given = jnp.full(model.condition_size, jnp.nan, jnp.float32) if vectors is None else jnp.asarray(vectors)
    each = jnp.broadcast_to(jnp.atleast_2d(given), (x.shape[0], model.condition_size))
    return model.outputs(params, x, t, labels, None, each)

  return network


def _once(network: Any) -> Any:
  """The network; asked again for the very same arguments, it gives the output that it gave.

  XLA does not see in a loop that two calls are the same: it takes their constants out of it apart.
  """
  last: list[Any] = []

  def call(x: jax.Array, t: jax.Array) -> Any:
    if not last or last[0] is not x or last[1] is not t:
      last[:] = x, t, network(x, t)
    return last[2]

  return call


def pair(
  model: "Model",
  label: Label | None,
  condition: Condition | None,
  guidance: float | jax.Array,
  clip: bool,
  once: bool = True,
) -> tuple[Denoiser, Variance | None]:
  """`Model.denoiser` and `Model.variance` (None of a network that predicts none), of one evaluation.

  With ``once`` they keep the last output, for as long as they are kept: for use within one trace.
  """
  if model.params is None:
    raise ValueError("this model has no parameters: train it with ddim_jax.runs.fit")
  both = model.predicts_variance

  def under(network: Any) -> Denoiser:
    mean = (lambda x, t: network(x, t)[..., : x.shape[-1]]) if both else network
    return as_denoiser(mean, model.schedule, model.parameterisation)

  network = _network(model, model.labels(label), model.vectors(condition))
  network = _once(network) if both and once else network
  denoise = under(network)
  if is_guided(guidance):
    check_finite("guidance", guidance)
    unconditional = not model.classes and model.conditions is None
    if unconditional or (model.classes and model.null_label is None):
      raise ValueError(
        "guidance needs a conditional model that was also trained without labels; this one was not. One"
        " that comes along: fashion_mnist_classes"
      )
    denoise = guide(denoise, under(_network(model, None, None)), model.schedule, guidance)
  denoise = model.restrict(denoise, model.schedule) if clip and model.scaling.bounded else denoise
  return denoise, (lambda x, t: network(x, t)[..., x.shape[-1] :]) if both else None
