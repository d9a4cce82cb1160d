"""Figures 3 to 6 and table 2 of the paper, the loss by level, and bits per dimension."""

import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import ddim_jax
from ddim_jax import console, data, likelihood, metrics, plots
from ddim_jax.commands import sequences
from ddim_jax.models import drawing, roundtrip
from ddim_jax.seeds import key_of
from experiments.paper.study import Task, eta_of

_SIDE = 5
_ROWS = 8
_ONE_IMAGE = 96
"""Smallest side of an image in a figure, in pixels."""


def figure3(task: Task, rows: Sequence[str], steps: Sequence[int]) -> dict[str, Any]:
  """Samples by S and eta, all from the same noise."""
  blocks: list[list[np.ndarray]] = []
  for row in rows:
    blocks.append([])
    for S in steps:
      images = _draw(task, row, S, _SIDE**2)
      blocks[-1].append(plots.enlarge(plots.grid(images, columns=_SIDE), 150))
  picture = plots.table(blocks, rows, [f"S = {S}" for S in steps])
  plots.save_png(task.folder / "figure3.png", picture, task.settings(steps=list(steps), rows=list(rows)))
  return {"picture": "figure3.png"}


def _draw(task: Task, row: str, S: int, num: int) -> np.ndarray:
  size, draw, _ = task.sampler(row, S, num)
  return np.concatenate([draw(np.arange(i, i + size), eta_of(row)) for i in range(0, num, size)])[:num]


def figure4(task: Task, steps: Sequence[int], rounds: int = 3) -> dict[str, Any]:
  """Time against S: the fastest of a few rounds after compiling, and the straight line through them."""
  seconds = []
  for S in steps:
    size, draw, _ = task.sampler("eta=0", S)
    indices = np.arange(size)
    draw(indices)  # compiles
    times = []
    for _ in range(rounds if S <= 100 else 1):
      began = time.monotonic()
      draw(indices)
      times.append(time.monotonic() - began)
    seconds.append(min(times))
  counts = [len(task.levels(S)) - 1 for S in steps]
  result: dict[str, Any] = {"images": size, "steps": counts, "seconds": seconds, "picture": "figure4.png"}
  fit = None
  if len(set(counts)) > 1:
    slope, intercept = np.polyfit(counts, seconds, 1)
    fit = (float(slope), float(intercept))
    residual = np.asarray(seconds) - slope * np.asarray(counts) - intercept
    spread = np.sum((np.asarray(seconds) - np.mean(seconds)) ** 2)
    result |= {
      "seconds_a_step": fit[0],
      "seconds_intercept": fit[1],
      "r_squared": float(1 - np.sum(residual**2) / spread) if spread else 1.0,
    }
  plots.save_points(
      task.folder / "figure4.png", counts, seconds, title=f"Time to sample {size} images",
      xlabel="steps", ylabel="seconds", fit=fit,
  )  # fmt: skip
  return result


def figure5(task: Task, steps: Sequence[int]) -> dict[str, Any]:
  """The same x_T with more and more steps: what is in the image is decided by x_T."""
  columns = [_draw(task, "eta=0", S, _ROWS) for S in steps]
  blocks = [[plots.enlarge(column[i], _ONE_IMAGE) for column in columns] for i in range(_ROWS)]
  picture = plots.table(blocks, [str(i) for i in range(_ROWS)], [f"S = {S}" for S in steps])
  plots.save_png(task.folder / "figure5.png", picture, task.settings(steps=list(steps), eta=0))
  real = [np.asarray(data.from_uint8(c)) for c in columns]
  return {
    "picture": "figure5.png",
    "N": _ROWS,
    "error_to_last": [metrics.reconstruction_error(x, real[-1]).value for x in real],
  }


def figure6(task: Task, columns: int = 11) -> dict[str, Any]:
  """Great-circle interpolation between pairs of noises, a row a pair."""
  ts = task.levels(task.trained.own_steps)
  how = sequences.How(task.trained, ts, "ddim", 0.0, None, None, False, task.seed)
  settings = task.settings(len(ts) - 1, eta=0)
  sequences.draw_interpolation(how, _ROWS, task.folder / "figure6.png", settings, columns)
  return {"picture": "figure6.png", "weights": np.linspace(0, 1, columns).tolist()}


def _batches(task: Task, num: int):
  """``(images: u8[B, ...], labels, valid)`` of the test split, all batches of one size."""
  num = min(num, task.test.size)
  size = min(task.at_once, num)
  for start in console.bar(iterable=range(0, num, size), unit="batch"):
    images, labels = task.test.read(np.arange(start, start + size) % task.test.size)
    yield images, labels if task.trained.classes else None, min(size, num - start)


def table2(task: Task, S: int, num: int) -> dict[str, Any]:
  """The error of test images encoded and decoded, per dimension, on the scale of [0, 1]."""
  ts, way = task.levels(S), roundtrip.through_noise(task.trained)
  task.print_levels(S)
  total, count = 0.0, 0
  for images, labels, valid in _batches(task, num):
    x0, _, made = way(images, labels, ts)
    total += metrics.reconstruction_error(x0[:valid], made[:valid]).value * valid
    count += valid
  return {"error": total / count, "N": count, "images": task.test.name}


def levels(task: Task, num: int, points: int = 20) -> dict[str, Any]:
  """The squared error of eps at some levels, on test images: L_simple by level."""
  trained = task.trained
  ts = ddim_jax.timesteps.linspace(trained.schedule.T, min(points, trained.schedule.T))[:-1]

  @jax.jit
  def run(trained, x0, labels, index):
    denoise = trained.denoiser(label=labels, clip=False)

    def at(t):
      key = jax.random.fold_in(jax.random.fold_in(key_of(task.seed), t), index)
      eps = jax.random.normal(key, x0.shape)
      error = denoise(ddim_jax.add_noise(trained.schedule, x0, eps, t), t).eps - eps
      return jnp.mean(error**2, axis=tuple(range(1, x0.ndim)))

    return jax.lax.map(at, jnp.asarray(ts))

  parts = [
    np.asarray(run(trained, drawing.on_devices(images), labels, i))[:, :valid]
    for i, (images, labels, valid) in enumerate(_batches(task, num))
  ]
  losses = np.concatenate(parts, axis=1).mean(axis=1, dtype=np.float64)
  plots.save_points(
      task.folder / "levels.png", ts.tolist(), losses.tolist(), title="Loss by level, test images",
      xlabel="level", ylabel="mean squared error of eps", log=True,
  )  # fmt: skip
  return {
    "picture": "levels.png",
    "t": ts.tolist(),
    "loss": losses.tolist(),
    "N": sum(p.shape[1] for p in parts),
  }


def bits(task: Task, num: int) -> dict[str, Any]:
  """The variational bound over all T levels, in bits per dimension, for both reverse variances."""
  trained = task.trained
  ts = ddim_jax.timesteps.uniform(trained.schedule.T, trained.schedule.T)
  unit = np.log(2) * np.prod(trained.shape)

  @jax.jit
  def run(trained, x0, labels, index, share):
    denoise = trained.denoiser(label=labels)
    keys = ddim_jax.image_keys(key_of(task.seed), index)
    bound = likelihood.variational_bound(keys, denoise, trained.schedule, x0, ts, share=share)
    return bound.prior, bound.levels, bound.decoder

  result: dict[str, Any] = {"t": ts[:-2].tolist()}
  for name, share in (("posterior", 0.0), ("beta", 1.0)):
    parts, count = [], 0
    for images, labels, valid in _batches(task, num):
      x0, index = drawing.on_devices(images), np.arange(count, count + len(images))
      terms = run(trained, x0, labels, index, share)
      parts.append([np.asarray(term, np.float64)[..., :valid] / unit for term in terms])
      count += valid
    prior, by_level, decoder = (np.concatenate(part, axis=-1) for part in zip(*parts, strict=True))
    total = prior + by_level.sum(axis=0) + decoder
    result[f"bits_{name}"] = float(total.mean())
    result[f"bits_{name}_error"] = float(total.std() / max(1, count - 1) ** 0.5)
    result |= {f"prior_{name}": float(prior.mean()), f"decoder_{name}": float(decoder.mean())}
    result[f"terms_{name}"] = by_level.mean(axis=1).tolist()
    result["N"] = count
  plots.save_points(
      task.folder / "bits.png", result["t"], result["terms_posterior"], title="Terms of the bound by level",
      xlabel="level", ylabel="bits per dimension", log=True,
  )  # fmt: skip
  return result | {"picture": "bits.png", "images": task.test.name}
