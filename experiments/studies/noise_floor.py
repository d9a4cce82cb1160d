"""The smallest distance worth talking about: between two halves of a data set, which differ by chance alone.

python -m experiments.studies.noise_floor cifar10
"""

import sys
from pathlib import Path

import numpy as np
import tyro

from ddim_jax import data
from ddim_jax.commands import options
from ddim_jax.models import datasets
from ddim_jax.models.config import Data
from ddim_jax.ranges import Positive
from ddim_jax.runs import quality


def noise_floor(
  dataset: tyro.conf.Positional[str] = "cifar10",
  *,
  num: int | None = None,
  seed: int = 0,
  batch_size: Positive = 256,
  inception: Path | None = None,
) -> None:
  """Prints all metrics of one random half of a data set against the other.

  Args:
    dataset: cifar10, fashion_mnist or digits.
    num: Images of each half; all by default.
    seed: Of the division.
    batch_size: Images at a time.
    inception: Weights of the FID's Inception network; without, EfficientNet-Lite0, or for grey images a
      classifier.
  """
  source = datasets.open_data(Data(dataset))
  half = source.size // 2 if num is None else num
  if not 2 <= half <= source.size // 2:
    raise ValueError(f"num must be in [2, {source.size // 2}], got {half}")
  judge = quality.judge(source.shape[-1], dataset, inception)
  order = data.batch_indices(source.size, source.size, seed, 0)
  one, other = (_seen(source, judge, order[first : first + half], batch_size) for first in (0, half))
  values = quality.measure(one, other, seed)
  print(f"{judge.name} of {source.name}, {half:,} images against {half:,} others")
  for name, value in values.items():
    print(f"{name:20}{value:.4g}")


def _seen(source: data.Source, judge: quality.Judge, rows: np.ndarray, batch_size: int) -> quality.Seen:
  first, *rest = (
    judge.look(source.read(rows[i : i + batch_size])[0]) for i in range(0, len(rows), batch_size)
  )
  seen = quality.add(None, *first)
  for found in rest:
    seen = quality.add(seen, *found)
  return seen


if __name__ == "__main__":
  options.run(noise_floor, sys.argv[1:], "noise_floor")
