r"""The Inception Score: how sure a classifier is of each image, and how varied its answers are.

.. math:: \exp\, \mathbb{E}_x\, \mathrm{KL}(p(y | x) \,\|\, p(y))

Salimans et al., arXiv:1606.03498. Between 1 and the number of classes. The name belongs to the Inception
network's classes; with another classifier say which.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

from ddim_jax.metrics.value import Value, finite


class ScoreSums(NamedTuple):
  """What the score needs, in float64; constant memory, mergeable.

  Attributes:
    num: Number of images.
    probabilities: Sum of p(y | x), ``f64[K]``.
    information: Sum over images of ``sum_y p log p``.
  """

  num: int
  probabilities: np.ndarray
  information: float


def score_sums(logits: ArrayLike) -> ScoreSums:
  """The sums of one batch of logits, ``f[B, K]``.

  Raises:
    ValueError: If the logits are not a non-empty matrix of finite numbers.
  """
  x = finite("logits", logits, 2)
  x = x - x.max(axis=1, keepdims=True)
  log_p = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
  p = np.exp(log_p)
  return ScoreSums(len(x), p.sum(axis=0), float(np.sum(p * log_p)))


def merge_scores(a: ScoreSums | None, b: ScoreSums) -> ScoreSums:
  """The sums of the union of two sets; None is the empty set."""
  if a is None:
    return b
  return ScoreSums(a.num + b.num, a.probabilities + b.probabilities, a.information + b.information)


def _score(sums: ScoreSums) -> float:
  p = sums.probabilities / sums.num
  p = p[p > 0]
  return float(np.exp(sums.information / sums.num - np.sum(p * np.log(p))))


def inception_score(parts: Sequence[ScoreSums]) -> Value:
  """The mean score over parts of a set, usually ten of 5,000 images, with its standard deviation.

  Raises:
    ValueError: If there are no parts.
  """
  if not parts:
    raise ValueError("there are no parts to score")
  scores = [_score(part) for part in parts]
  spread = float(np.std(scores)) if len(scores) > 1 else None
  return Value(float(np.mean(scores)), sum(part.num for part in parts), spread)
