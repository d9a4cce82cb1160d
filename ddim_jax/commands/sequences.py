"""What ``ddim sample`` draws besides plain images: trajectories, interpolations, reconstructions."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import ddim_jax
from ddim_jax import metrics, plots
from ddim_jax.console import say
from ddim_jax.models import Model, datasets, denoising, drawing, tables
from ddim_jax.models.roundtrip import through_noise
from ddim_jax.seeds import key_of
from ddim_jax.solvers import Solver

_MOST = 8


class How(NamedTuple):
  """How images are drawn.

  Attributes:
    model: By which model.
    ts: Over which levels.
    solver: By which solver.
    eta: With which noise.
    label: Of which class, ``i32[]``; None for image i of class i modulo their number.
    guidance: Weight of guidance, None for none.
    clip: Whether predictions are clipped.
    seed: Decides the noise, with an image's number.
    condition: Numbers to condition on, or None.
  """

  model: Model
  ts: np.ndarray
  solver: str | Solver
  eta: float
  label: Any
  guidance: float | None
  clip: bool
  seed: int
  condition: Any = None

  def noise(self, num: int) -> tuple[jax.Array, jax.Array]:
    """Keys ``[num]`` and first noise ``f32[num, H, W, C]`` of the first images."""
    return drawing.starts(self.model, key_of(self.seed), np.arange(num))

  def labels(self, num: int) -> Any:
    """Classes of the first images, ``i32[num]``; None for an unconditional model."""
    if self.label is None or not self.model.classes:
      return drawing.in_turn(self.model, jnp.arange(num))
    return jnp.full(num, self.label)


def _pictures(model: Model, samples: np.ndarray) -> np.ndarray:
  """Samples ``[A, B, *shape]`` as pictures, ``u8[A, B, H, W, C]``."""
  numbers = np.arange(samples.shape[0] * samples.shape[1]) % samples.shape[1]
  found = model.pictures(drawing.finite(samples.reshape(-1, *model.shape), numbers))
  return found.reshape(*samples.shape[:2], *found.shape[1:])


def draw_trajectory(how: How, num: int, out: Path, settings: dict[str, Any]) -> None:
  """How a few images emerge: samples above, predictions of the final image below."""
  num = min(num, _MOST)
  keys, noise = how.noise(num)

  @jax.jit
  def run(model: Model, eta: Any, guidance: Any, ts: Any) -> Any:
    denoise, variance = denoising.pair(model, how.labels(num), how.condition, guidance, how.clip)
    solver = tables.as_solver(how.solver, eta, variance)
    observe = lambda step: (step.x_s, step.prediction.x0)
    return ddim_jax.sample(keys, denoise, model.schedule, noise, ts, solver=solver, observe=observe)[1]

  seen = run(how.model, how.eta, how.guidance, how.ts)
  samples, predictions = (_pictures(how.model, np.asarray(x)) for x in seen)
  shown = np.unique(np.linspace(0, len(how.ts) - 2, 12).round().astype(int))
  rows = [moments[shown, i] for i in range(num) for moments in (samples, predictions)]
  beside = [text for i in range(num) for text in (f"image {i}", "predicted")]
  above = [f"level {level:.4g}" for level in how.ts[shown + 1]]
  plots.save_png(out, plots.labelled(np.concatenate(rows), beside, above), settings)
  frames = np.stack([plots.grid(frame, columns=num) for frame in samples])
  for suffix in (".gif", ".webp"):
    plots.save_animation(out.with_suffix(suffix), frames, settings=settings)
  say(f"wrote {out} (each image: the sample, and below it the prediction), and .gif and .webp beside it")


def draw_interpolation(how: How, num: int, out: Path, settings: dict[str, Any], columns: int = 11) -> None:
  """The paper's figure 6: a row for every pair of noises."""
  rows = min(num, _MOST)
  keys, noise = how.noise(2 * rows)
  weights, labels = jnp.linspace(0, 1, columns), how.labels(rows)

  @jax.jit
  def run(model: Model, eta: Any, guidance: Any, ts: Any) -> Any:
    tiled = None if labels is None else jnp.tile(labels, columns)
    denoise, variance = denoising.pair(model, tiled, how.condition, guidance, how.clip)
    pairs, solver = (noise[:rows], noise[rows:]), tables.as_solver(how.solver, eta, variance)
    return ddim_jax.interpolate(keys[:rows], denoise, model.schedule, *pairs, ts, weights, solver=solver)

  images = _pictures(how.model, np.asarray(run(how.model, how.eta, how.guidance, how.ts)))
  above = [f"{weight:.2g}" for weight in weights]
  picture = plots.labelled(images.swapaxes(0, 1).reshape(-1, *images.shape[2:]), columns=above)
  plots.save_png(out, picture, settings)
  say(f"wrote {out}: {rows} pairs, {columns} weights from 0 to 1")


def draw_reconstruction(
  model: Model, ts: np.ndarray, num: int, refine: int, batch_size: int, out: Path, settings: dict[str, Any]
) -> None:
  """Real images encoded and decoded: originals above, reconstructions below."""
  source = datasets.test_data(model)
  num = min(num, source.size)
  way, found = through_noise(model), []
  for start in range(0, num, batch_size):
    images, labels = source.read(np.arange(start, start + batch_size) % source.size)
    found.append(way(images, labels, ts, refine))
  real, _, made = (np.concatenate(arrays)[:num] for arrays in zip(*found, strict=True))
  error = metrics.reconstruction_error(real, made).value
  columns = min(num, 16)
  pairs = model.pictures(np.concatenate([real[:columns], made[:columns]]))
  plots.save_png(out, plots.labelled(pairs, ["original", "decoded"]), settings)
  say(
    f"mean squared error per dimension, images in [0, 1]: {error:.3g} over {num} images of {source.name}"
    f" (S = {len(ts) - 1}, refine {refine}); wrote {out}"
  )
