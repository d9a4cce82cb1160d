"""Classes of diffusers by name, and the noise of the one that draws it from a tree."""

import importlib
import importlib.util
import sys
import types

import diffusers
import numpy as np
import torch

_SDE = "DPMSolverSDEScheduler"
HAS_TREE = importlib.util.find_spec("torchsde") is not None
"""Whether its own source of noise is installed."""


def class_of(name):
  """A scheduler class, also the one that diffusers hides where torchsde, its source of noise, is missing."""
  if name != _SDE:
    return getattr(diffusers, name)
  if not HAS_TREE:
    sys.modules.setdefault("torchsde", types.ModuleType("torchsde"))
  return getattr(importlib.import_module("diffusers.schedulers.scheduling_dpmsolver_sde"), name)


def brownian(rows):
  """A noise sampler for `DPMSolverSDEScheduler` that gives each step two rows.

  ``(sigma, sigma_next) -> noise``: the first call of a step takes a row; the second takes the increment of
  the same Brownian motion over the whole step, of which the first call gave a part.
  """
  first = []

  def noise(start, end):
    if not first:
      first[:] = float(end), next(rows)
      return torch.from_numpy(first[1])
    middle, z = first
    first.clear()
    start, end = float(start), float(end)
    share = (start - middle) / (start - end)
    mixed = np.sqrt(share) * z + np.sqrt(1 - share) * next(rows)
    return torch.from_numpy(mixed.astype(np.float32))

  return noise
