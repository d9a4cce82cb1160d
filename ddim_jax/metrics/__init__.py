"""How good samples are: distances between sets of images, measured on features of a network.

``images -> features -> statistics -> value``. An extractor is any function from images ``u8[B, H, W, C]``
to features ``f32[B, D]`` (`inception.extractor`, `efficientnet.extractor`, `classifier.extractor`);
statistics are gathered batch by batch and can be merged; every value carries the number of images behind it.

The name FID belongs to the Inception network of `inception` alone. The same distance on the features of
`efficientnet` is called FD-EfficientNet-Lite0, on those of `classifier` FD-classifier: they are not
comparable.
"""

from ddim_jax.metrics.extract import gather, over_devices
from ddim_jax.metrics.frechet import Moments, frechet_distance, merge, merge_hosts, moments
from ddim_jax.metrics.inception_score import ScoreSums, inception_score, merge_scores, score_sums
from ddim_jax.metrics.kernel import kernel_distance, squared_mmd, subsets
from ddim_jax.metrics.precision_recall import precision_recall
from ddim_jax.metrics.value import Value, reconstruction_error

__all__ = [
  "Moments",
  "ScoreSums",
  "Value",
  "frechet_distance",
  "gather",
  "inception_score",
  "kernel_distance",
  "merge",
  "merge_hosts",
  "merge_scores",
  "moments",
  "over_devices",
  "precision_recall",
  "reconstruction_error",
  "score_sums",
  "squared_mmd",
  "subsets",
]
