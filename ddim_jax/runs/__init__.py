"""Training runs: `fit` starts one, or goes on with it. Needs the ``train`` extra.

start -> update, update, ... -> checkpoints, metrics, grids, evaluations -> Model
"""

from ddim_jax.runs.halving import distil
from ddim_jax.runs.hosts import connected
from ddim_jax.runs.loop import Interrupted, fit

__all__ = ["Interrupted", "connected", "distil", "fit"]
