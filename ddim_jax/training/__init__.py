"""Training: what is minimised, and one step of it.

The step is a pure function for ``jit``, ``pmap`` or ``shard_map``. Every example has its own random
key, made from the run's key, the step and the example's place in the global batch: the result does not
depend on the number of devices, and a restart replays nothing and skips nothing.
"""

from ddim_jax.training.hybrid import hybrid_losses
from ddim_jax.training.losses import (
  Levels,
  Network,
  Weighting,
  antithetic_levels,
  example_losses,
  min_snr,
  noised,
  p2,
  split_each,
  uniform_levels,
  variational,
)
from ddim_jax.training.step import (
  TrainState,
  constant_decay,
  cosine_rate,
  create_state,
  inverse_sqrt_rate,
  make_train_step,
  warm_decay,
  warm_rate,
  warmed_up,
)

__all__ = [
  "Levels",
  "Network",
  "TrainState",
  "Weighting",
  "antithetic_levels",
  "constant_decay",
  "cosine_rate",
  "create_state",
  "example_losses",
  "hybrid_losses",
  "inverse_sqrt_rate",
  "make_train_step",
  "min_snr",
  "noised",
  "p2",
  "split_each",
  "uniform_levels",
  "variational",
  "warm_decay",
  "warm_rate",
  "warmed_up",
]
