"""What a run minimises, and with which optimiser."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from ddim_jax import training
from ddim_jax.models.config import Optimisation
from ddim_jax.models.model import Model
from ddim_jax.models.tables import named

WEIGHTINGS: dict[str, Callable[[], training.Weighting | None]] = {
  "none": lambda: None,
  "min_snr": training.min_snr,
  "p2": training.p2,
  "variational": training.variational,
}
"""Name -> weighting of the loss by level."""


def losses(
  model: Model, weighting: training.Weighting | None = None, label_dropout: float = 0.1
) -> Callable[..., jax.Array]:
  """The loss of each example, with dropout and label dropout; see `ddim_jax.training.example_losses`.

  Args:
    model: The model to train; its parameters are an argument.
    weighting: Weighting of the loss by level, or None for L_simple.
    label_dropout: Fraction of labels hidden, for classifier-free guidance, where the model has a label for
      no class.

  Raises:
    ValueError: If ``label_dropout`` is not in [0, 1).
  """
  if not 0 <= label_dropout < 1:
    raise ValueError(f"label_dropout must be in [0, 1), got {label_dropout}")

  def network(params, x_t, t, labels, keys):
    dropout_keys, label_keys = training.split_each(keys)
    if model.null_label is not None:
      hidden = jax.vmap(lambda key: jax.random.bernoulli(key, label_dropout))(label_keys)
      labels = jnp.where(hidden, model.null_label, labels)
    return model.adapted.apply(params, x_t, t, labels if model.classes else None, dropout_keys)

  return training.example_losses(network, model.schedule, model.parameterisation, weighting)


def levels(antithetic: bool, T: int) -> training.Levels:
  """How each example's level is drawn from 1 to T: in pairs t and T + 1 - t, or independently."""
  return (training.antithetic_levels if antithetic else training.uniform_levels)(T)


def optimizer(options: Optimisation) -> optax.GradientTransformation:
  """The optimiser of a configuration, with warm-up and clipping."""
  chosen = named({"adam": optax.adam, "sgd": optax.sgd}, options.optimizer, "optimizer")
  return training.warmed_up(chosen, options.learning_rate, options.warmup, options.clip)
