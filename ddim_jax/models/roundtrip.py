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
    x0 again)``, each ``f32[B, *shape]`` in data units; compiled once for every B and S. It raises ValueError
    on a class that the model has not, FloatingPointError where what it found is not finite.
  """

  @jax.jit
  def run(
    trained: Model, x0: jax.Array, labels: Any, ts: Any, refine: Any, damping: Any
  ) -> tuple[jax.Array, jax.Array]:
    denoise = trained.denoiser(label=labels, clip=False)
    return way(denoise, trained.schedule, x0, ts, refine, damping)

  def there_and_back(
    images: np.ndarray, labels: Any, ts: np.ndarray, refine: int = 0, damping: float = 1.0
  ) -> tuple[np.ndarray, ...]:
    x0 = drawing.on_devices(images, trained.scaling)
    numbers = trained.labels(labels) if trained.classes else None
    return tuple(map(drawing.finite, (x0, *run(trained, x0, numbers, ts, refine, damping))))

  return there_and_back


Code = Callable[..., Callable[[Denoiser], jax.Array]]
"""``(key, denoise, schedule, x0, ts) -> (denoise -> x0)``: data encoded, to be decoded by any denoiser."""


def inverted(refine: int = 0) -> Code:
  """Deterministic inversion with so many fixed-point iterations a step."""

  def code(key: jax.Array, denoise: Denoiser, schedule: Schedule, x0: jax.Array, ts: Any) -> Any:
    x_T = ddim_jax.invert(denoise, schedule, x0, ts, refine=refine)
    return lambda other: ddim_jax.sample(key, other, schedule, x_T, ts)[0]

  return code


def in_pairs(key: jax.Array, denoise: Denoiser, schedule: Schedule, x0: jax.Array, ts: Any) -> Any:
  """The bijective sampler."""
  pair = bijective.encode(denoise, schedule, x0, ts)
  return lambda other: bijective.decode(other, schedule, pair, ts)


def noise_maps(key: jax.Array, denoise: Denoiser, schedule: Schedule, x0: jax.Array, ts: Any) -> Any:
  """The recorded noise of the stochastic process."""
  maps = ddim_jax.encode_noises(key, denoise, schedule, x0, ts)
  return lambda other: ddim_jax.decode_noises(other, schedule, maps, ts)


def edited(code: Code) -> Callable[..., tuple[jax.Array, jax.Array]]:
  """A compiled function that encodes data as what they are, and decodes them as that and as another class.

  Returns:
    ``(model, keys: [B], x0: f32[B, *shape], before: i32[B], after: i32[B], weight: f32[], ts) -> (x0 again,
    x0 of the other class)``; both ways with guidance of this weight, unclipped.
  """

  @jax.jit
  def run(
    model: Model, keys: Any, x0: jax.Array, before: Any, after: Any, weight: Any, ts: Any
  ) -> tuple[jax.Array, jax.Array]:
    of = lambda label: model.denoiser(label=label, guidance=weight, clip=False)
    decode = code(keys, of(before), model.schedule, x0, ts)
    return decode(of(before)), decode(of(after))

  return run
