"""The smallest distance worth talking about: of a data set to itself, by chance alone.

python -m experiments.studies.noise_floor cifar10

python -m experiments.studies.noise_floor cifar10 --against test
"""

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

from ddim_jax import console, data
from ddim_jax.commands import options
from ddim_jax.models import datasets
from ddim_jax.models.config import Data
from ddim_jax.ranges import Positive, Seed, Several
from ddim_jax.runs import quality


def noise_floor(
  dataset: tyro.conf.Positional[str] = "cifar10",
  *,
  against: Literal["half", "test"] = "half",
  num: Several | None = None,
  seed: Seed = 0,
  batch_size: Positive = 256,
  inception: Path | None = None,
) -> None:
  """Prints all metrics of one random half of the training images against the other, or of test images.

  Args:
    dataset: cifar10, fashion_mnist or digits.
    against: half: one half of the training images against the other. test: test images against all of them.
    num: Images of each half, or of the test images; all by default.
    seed: Of the division.
    batch_size: Images at a time.
    inception: Weights of the FID's Inception network; without, EfficientNet-Lite0, or for grey images a
      classifier.
  """
  given = Data(dataset)
  source = datasets.open_data(given)
  judge = quality.judge(source.shape[-1], dataset, inception)
  if against == "test":
    judged = datasets.open_data(dataclasses.replace(given, split="test"))
    size, first = judged.size, 0
  else:
    judged, size = source, source.size // 2
    first = size
  number = size if num is None else num
  if number > size:
    raise ValueError(f"num must be at most {size:,}, got {number:,}")

  def batches(source: data.Source, first: int, number: int) -> Iterator[np.ndarray]:
    rows = data.batch_indices(source.size, source.size, seed, 0)[first : first + number]
    for i in console.bar(iterable=range(0, number, batch_size), desc=source.name, unit="batch"):
      yield source.read(rows[i : i + batch_size])[0]

  real = quality.look(judge, batches(source, 0, source.size if against == "test" else number))
  values = quality.measure(real, quality.look(judge, batches(judged, first, number)), seed)
  print(f"{judge.name} of {source.name}: {number:,} images of the {against} against {real.moments.num:,}")
  for name, value in values.items():
    print(f"{name:20}{value:.4g}")


if __name__ == "__main__":
  options.run(noise_floor, sys.argv[1:], "noise_floor")
