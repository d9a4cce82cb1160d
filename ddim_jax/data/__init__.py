"""Images, from wherever they are to batches: ``builders -> Source -> batch_at -> prefetch``.

Needs the ``train`` extra (TensorFlow Datasets, without TensorFlow).
"""

from ddim_jax.data.batches import Batch, batch_at, batch_indices, from_uint8, prefetch, to_uint8
from ddim_jax.data.sources import Source, in_memory, load_builtin, load_folder, load_tfds

__all__ = [
  "Batch",
  "Source",
  "batch_at",
  "batch_indices",
  "from_uint8",
  "in_memory",
  "load_builtin",
  "load_folder",
  "load_tfds",
  "prefetch",
  "to_uint8",
]
