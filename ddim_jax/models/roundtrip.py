"""Real images encoded into noise and decoded again."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import ddim_jax
from ddim_jax import bijective
from ddim_jax.denoisers import Denoiser
from ddim_jax.models import Model, drawing
from ddim_jax.schedules import Schedule

Way = Callable[..., tuple[jax.Array, jax.Array]]
"""``(denoise, schedule, x0, ts, refine, damping) -> (x_T, x0 again)``."""


def refined(
  denoise: Denoiser, schedule: Schedule, x0: jax.Array, ts: Any, refine: Any, damping: Any
) -> tuple[jax.Array, jax.Array]:
  """Fixed-point inversion and DDIM."""
  x_T = ddim_jax.invert(denoise, schedule, x0, ts, refine=refine, damping=damping)
  return x_T, ddim_jax.sample(jax.random.key(0), denoise, schedule, x_T, ts)[0]


def exact(weight: bijective.Weight) -> Way:
  """A bijective sampler, both ways."""

  def way(
    denoise: Denoiser, schedule: Schedule, x0: jax.Array, ts: Any, refine: Any, damping: Any
  ) -> tuple[jax.Array, jax.Array]:
    pair = bijective.encode(denoise, schedule, x0, ts, weight=weight)
    return pair.x_T, bijective.decode(denoise, schedule, pair, ts, weight=weight)

  return way


def through_noise(trained: Model, way: Way = refined) -> Callable[..., tuple[np.ndarray, ...]]:
  """A function that encodes and decodes a batch, over as many local devices as can share it.

  Returns:
    ``(images: [B, *shape] as the data set holds them, labels: i32[B], ts, refine=0, damping=1.0) -> (x0, x_T,
    x0 again)``, each ``f32[B, *shape]`` in data units; compiled once for every B and S.
  """

  @jax.jit
  def run(
    trained: Model, x0: jax.Array, labels: Any, ts: Any, refine: Any, damping: Any
  ) -> tuple[jax.Array, jax.Array]:
    denoise = trained.denoiser(label=labels if trained.classes else None, clip=False)
    return way(denoise, trained.schedule, x0, ts, refine, damping)

  def there_and_back(
    images: np.ndarray, labels: Any, ts: np.ndarray, refine: int = 0, damping: float = 1.0
  ) -> tuple[np.ndarray, ...]:
    x0 = drawing.on_devices(images, trained.scaling)
    found = run(trained, x0, labels, ts, refine, damping)
    return tuple(map(np.asarray, (x0, *found)))

  return there_and_back
