"""Trained models: `load` one from wherever it is, draw from it, save it.

    load(where) or from_network(network, ...) -> Model -> sample, denoiser, invert, save

Everything that decides a model is in `config`; `build` is the one place where one is made.
"""

from ddim_jax.models.custom import from_network
from ddim_jax.models.loading import load, packaged
from ddim_jax.models.model import Model
from ddim_jax.models.networks import Adapted, adapt
from ddim_jax.models.tables import SOLVERS

__all__ = ["SOLVERS", "Adapted", "Model", "adapt", "from_network", "load", "packaged"]
