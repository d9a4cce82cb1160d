"""How a run is judged while it trains: the loss by level, and the distance of its samples to the data."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ddim_jax import data, metrics
from ddim_jax.metrics.frechet import Moments
from ddim_jax.models import Model, drawing
from ddim_jax.runs import quality

_BINS = 10


def level_edges(T: int) -> list[int]:
  """The first levels of the second to the last of ten equal parts of 1..T."""
  return sorted({T * i // _BINS + 1 for i in range(1, _BINS)} - {1})


def by_level(values: dict[str, np.ndarray], T: int) -> dict[str, float]:
  """Mean losses of parts of the levels that had examples, such as ``{"loss_0101_0200": 0.03}``."""
  edges = [1, *level_edges(T), T + 1]
  sums, counts = values["level_losses"], values["level_counts"]
  return {
    f"loss_{low:04d}_{high - 1:04d}": float(total / count)
    for low, high, total, count in zip(edges, edges[1:], sums, counts, strict=False)
    if count
  }


def given(model: Model, source: data.Source, num: int) -> dict[str, Any]:
  """Conditions of so many random examples, with their labels, to draw with; nothing for a model without."""
  if source.conditions is None:
    return {}
  rows = data.batch_indices(source.size, num, 0, 0)
  labels = source.read(rows)[1] if model.classes else None
  return {"label": labels, "condition": source.conditions[rows]}


def _as_pixels(source: data.Source, model: Model) -> data.Source:
  """The source with its images as u8, which judges look at."""

  def read(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    images, labels = source.read(rows)
    if source.scaling == data.BYTES and model.decode is None:
      return images, labels
    return model.pictures(np.asarray(source.scaling.to_data(images))), labels

  return source._replace(read=read)


def evaluator(
  model: Model,
  source: data.Source,
  *,
  folder: Path,
  num: int = 1000,
  seed: int = 0,
  decays: Sequence[float] = (),
  inception: Path | None = None,
  name: str = "",
) -> Callable[[Any, Sequence[Any]], dict[str, float]]:
  """``(ema, emas) -> values``: the Frechet distance of samples of every EMA to the data set.

  The value of the main EMA is "frechet", that of another "frechet_0.999". Each process draws and measures
  its part of the images; the values are the same on all.

  Args:
    model: The model; its parameters are an argument.
    source: The data set.
    folder: Where what the judge sees in the data set is kept.
    num: Images to draw, by DDIM with the model's own number of steps; at least 2.
    seed: Of the images.
    decays: Decays of the further EMAs, for their names.
    inception: Weights of the FID's Inception network; None is EfficientNet-Lite0, or for grey images a
      classifier.
    name: Name of the data set: "digits", or another.

  Raises:
    ValueError: If there is no judge for such images.
  """
  pixels = _as_pixels(source, model)
  judge = quality.judge(pixels.read(np.zeros(1, np.int64))[0].shape[-1], name, inception)
  real = quality.reference(pixels, judge, folder)
  ts = model.levels(model.own_steps, None if model.config.distilled else "uniform")
  share = -(-num // jax.process_count())
  size, draw = drawing.numbered_pictures(
    model, ts, solver="ddim", seed=seed, at_once=min(share, 256), **given(model, source, num)
  )
  first, stride = jax.process_index() * size, jax.process_count() * size

  def distance(params: Any) -> float:
    dimensions = real.moments.mean.size
    seen = Moments(0, np.zeros(dimensions), np.zeros((dimensions, dimensions)))
    for start in range(first, num, stride):
      try:
        images = draw(np.arange(start, start + size), params=params)[: num - start]
        seen = metrics.merge(seen, metrics.moments(judge.look(images)[0]))
      except FloatingPointError:  # never the best; all processes still take part in the all-gather below
        seen = seen._replace(num=num, mean=np.full(dimensions, np.nan))
        break
    value = metrics.frechet_distance(real.moments, metrics.merge_hosts(seen)).value
    return value if np.isfinite(value) else np.inf

  def evaluate(ema: Any, emas: Sequence[Any]) -> dict[str, float]:
    others = {f"frechet_{decay:g}": distance(params) for decay, params in zip(decays, emas, strict=True)}
    return {"frechet": distance(ema)} | others

  return evaluate
