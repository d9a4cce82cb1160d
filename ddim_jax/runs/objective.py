"""What a run minimises, and with which optimiser."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from ddim_jax import continuous, training
from ddim_jax.models.model import Model
from ddim_jax.models.tables import named
from ddim_jax.schedules import Schedule

WEIGHTINGS: dict[str, Callable[[], training.Weighting | None]] = {
  "none": lambda: None,
  "min_snr": training.min_snr,
  "p2": training.p2,
  "variational": training.variational,
}
"""Name -> weighting of the loss by level."""


SCHEDULES: dict[str, Callable[[float, int, int], float | optax.Schedule]] = {
  "constant": lambda rate, warmup, steps: rate,
  "cosine": lambda rate, warmup, steps: training.cosine_rate(rate, warmup, steps=steps),
  "inverse_sqrt": lambda rate, warmup, steps: training.inverse_sqrt_rate(rate, warmup),
}
"""Name -> what the learning rate does, by its largest value, the warm-up and all updates."""


class Given(NamedTuple):
  """What comes with images, in place of labels alone where there are conditions.

  Attributes:
    labels: ``i32[B]``.
    conditions: ``f32[B, K]`` in the numbers of the data set; after `hide` standardised, and NaN where hidden.
  """

  labels: jax.Array
  conditions: jax.Array


def hide(given: Any, keys: jax.Array, model: Model, label_dropout: float) -> tuple[Any, Any]:
  """What a model is given in training: ``(labels, conditions)``, each None where it takes none.

  A fraction of labels says "no class", where the model has a label for that, and the same fraction of
  conditions is hidden. Where it has both, half of the images of which something is hidden lose both, a
  quarter each one: so that it learns all that it can be asked for.

  Args:
    given: Labels ``i32[B]``, or `Given`.
    keys: One for each image, ``[B]``.
    model: The model.
    label_dropout: The fraction.
  """
  labels = given.labels if isinstance(given, Given) else given
  hidden = jax.vmap(lambda key: jax.random.bernoulli(key, label_dropout))(keys)
  no_label = no_condition = hidden
  null = model.null_label
  if null is not None and model.conditions is not None:
    which = jax.vmap(lambda key: jax.random.randint(jax.random.fold_in(key, 1), (), 0, 4))(keys)
    no_label, no_condition = hidden & (which != 0), hidden & (which != 1)
  labels = labels if null is None else jnp.where(no_label, null, labels)
  conditions = None
  if model.conditions is not None:
    conditions = jnp.where(no_condition[:, None], jnp.nan, model.vectors(given.conditions))
  return labels if model.classes else None, conditions


def losses(
  model: Model, weighting: training.Weighting | None = None, label_dropout: float = 0.1
) -> Callable[..., jax.Array]:
  """The loss of each example, with dropout and label dropout; see `ddim_jax.training.example_losses`.

  That of a network that also predicts variances is `ddim_jax.training.hybrid_losses`.

  Args:
    model: The model to train; its parameters are an argument.
    weighting: Weighting of the loss by level, or None for L_simple.
    label_dropout: Fraction of labels and conditions hidden, for classifier-free guidance, see `hide`.

  Raises:
    ValueError: If the network also predicts variances, and weighting or data do not go with that.
  """

  def network(params: Any, x_t: jax.Array, t: Any, labels: Any, keys: Any) -> jax.Array:
    dropout_keys, label_keys = training.split_each(keys)
    numbers, conditions = hide(labels, label_keys, model, label_dropout)
    return model.outputs(params, x_t, t, numbers, dropout_keys, conditions)

  if model.predicts_variance:
    if weighting is not None:
      raise ValueError("weighting must be none for a network that also predicts variances: it has its own")
    if not model.scaling.bounded:
      raise ValueError(
        "data must be pictures with limits for a network that also predicts variances, not standardised"
      )
    return training.hybrid_losses(network, model.schedule, model.parameterisation)
  return training.example_losses(network, model.schedule, model.parameterisation, weighting)


def simple(
  weighting: str | training.Weighting | None, distribution: str, antithetic: bool, label_dropout: float
) -> Callable[[Model], tuple[Callable[..., jax.Array], training.Levels]]:
  """``model -> (losses, levels)`` of ordinary training.

  Raises:
    ValueError: If there is no weighting of that name; when called, as `levels`.
  """
  weigh = named(WEIGHTINGS, weighting, "weighting")() if isinstance(weighting, str) else weighting

  def of(model: Model) -> tuple[Callable[..., jax.Array], training.Levels]:
    drawn = levels(model.schedule, distribution, antithetic)
    if model.predicts_variance and distribution != "uniform":
      raise ValueError(
        f"level_distribution must be uniform for a network that also predicts variances, got {distribution}"
      )
    return losses(model, weigh, label_dropout), drawn

  return of


LEVELS: dict[str, Callable[[Schedule], training.Levels]] = {
  "uniform": lambda schedule: training.uniform_levels(schedule.T),
  "log_normal": continuous.log_normal_levels,
  "logit_normal": continuous.logit_normal_levels,
}
"""Name -> how an example's level is drawn, by the schedule."""


def levels(schedule: Schedule, distribution: str = "uniform", antithetic: bool = False) -> training.Levels:
  """How each example's level is drawn: in pairs t and T + 1 - t, or independently by a key of `LEVELS`.

  Raises:
    ValueError: If there is no distribution of that name, or it does not go with antithetic.
  """
  drawn = named(LEVELS, distribution, "level_distribution")
  if antithetic and distribution != "uniform":
    raise ValueError(f"antithetic goes with level_distribution uniform, got {distribution}")
  return training.antithetic_levels(schedule.T) if antithetic else drawn(schedule)


_ALIKE = (optax.adam, optax.adamw, optax.sgd)


def unwrapped(choice: Any) -> tuple[Any, dict[str, Any]]:
  """``(function, keywords)`` of a `functools.partial`; anything else as it is, without keywords."""
  return getattr(choice, "func", choice), getattr(choice, "keywords", {})


def alike(made_by: Any) -> bool:
  """Whether it treats all numbers alike, so that its state may be vectors, see `ddim_jax.packing`."""
  function, given = unwrapped(made_by)
  return function in _ALIKE and set(given) <= {"weight_decay", "b1", "b2", "eps"}


def schedule(
  learning_rate: float | optax.Schedule, name: str, warmup: int, steps: int
) -> float | optax.Schedule:
  """A learning rate with what it does after the warm-up; a number stays one where that is nothing.

  Raises:
    ValueError: If there is no such name, or it does not go with the rate and the warm-up.
  """
  found = named(SCHEDULES, name, "learning_rate_schedule")
  if not callable(learning_rate):
    return found(learning_rate, warmup, steps)
  if name != "constant":
    raise ValueError(f"learning_rate_schedule {name} needs a number as learning_rate, got a schedule")
  return learning_rate


def optimizer(
  made_by: Callable[..., optax.GradientTransformation] | optax.GradientTransformation,
  learning_rate: float | optax.Schedule,
  warmup: int,
  clip: float,
) -> optax.GradientTransformation:
  """An optimiser with warm-up and clipping; one that is finished stays as it is.

  Args:
    made_by: ``(learning_rate) -> optimiser``, such as ``optax.adam``; or an optimiser.
    learning_rate: A number; or an optax schedule, which has its own warm-up.
    warmup: Updates over which a number rises from 0.
    clip: Largest global norm of a gradient, positive.
  """
  if isinstance(made_by, optax.GradientTransformation):
    return made_by
  if callable(learning_rate):
    return optax.chain(optax.clip_by_global_norm(clip), made_by(learning_rate))
  return training.warmed_up(made_by, learning_rate, warmup, clip)


def rate(
  made_by: Callable[..., optax.GradientTransformation] | optax.GradientTransformation,
  learning_rate: float | optax.Schedule,
  warmup: int,
) -> optax.Schedule | None:
  """The learning rate by the number of updates before, for the log; None of a finished optimiser."""
  if isinstance(made_by, optax.GradientTransformation):
    return None
  return learning_rate if callable(learning_rate) else training.warm_rate(learning_rate, warmup)


def accumulated(losses: Callable[..., jax.Array], parts: int) -> Callable[..., jax.Array]:
  """The same losses, a part of the batch after another: memory for the activations of one part.

  The gradient of each part is taken with its losses and added up, so that nothing is computed twice. That is
  right for what `ddim_jax.training.make_train_step` differentiates: the mean of all losses.

  Args:
    losses: See `ddim_jax.training.example_losses`.
    parts: Into how many the batch of a device is divided, evenly.
  """
  if parts == 1:
    return losses
  divided = lambda batch: jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), batch)

  @jax.custom_vjp
  def values(params: Any, *batch: jax.Array) -> jax.Array:
    found: jax.Array = jax.lax.map(lambda part: losses(params, *part), divided(batch))
    return found.reshape(-1)

  def forward(params: Any, *batch: jax.Array) -> tuple[jax.Array, Any]:
    def add(total: Any, part: Any) -> tuple[Any, jax.Array]:
      def summed(params: Any) -> tuple[jax.Array, jax.Array]:
        found = losses(params, *part)
        return jnp.sum(found), found

      (_, found), grads = jax.value_and_grad(summed, has_aux=True)(params)
      return jax.tree.map(jnp.add, total, grads), found

    grads, found = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), divided(batch))
    return found.reshape(-1), grads

  def backward(grads: Any, cotangent: jax.Array) -> tuple[Any, ...]:
    return jax.tree.map(lambda grad: grad * cotangent[0].astype(grad.dtype), grads), None, None, None, None

  values.defvjp(forward, backward)
  return values
