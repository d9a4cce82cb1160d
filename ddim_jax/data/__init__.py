"""Data in any form, from wherever it is to batches: ``load_* -> Source -> batch_at -> prefetch``.

A `Source` gives numbers as they are stored, and its `Scaling` says what they mean: ``scaling.to_data``
makes them what a network sees, ``scaling.to_values`` makes samples what was stored. Needs the ``train``
extra.
"""

from ddim_jax.data.arrays import load_array, save_array
from ddim_jax.data.batches import Batch, batch_at, batch_indices, prefetch
from ddim_jax.data.folders import load_folder
from ddim_jax.data.hub import load_hf
from ddim_jax.data.pictures import read_mask, read_picture
from ddim_jax.data.prepared import default_data_dir, load_builtin, load_tfds
from ddim_jax.data.report import Report, contact_sheet, inspect
from ddim_jax.data.sources import Found, Source, in_memory
from ddim_jax.scaling import BYTES, Scaling, from_uint8, to_uint8

__all__ = [
  "BYTES",
  "Batch",
  "Found",
  "Report",
  "Scaling",
  "Source",
  "batch_at",
  "batch_indices",
  "contact_sheet",
  "default_data_dir",
  "from_uint8",
  "in_memory",
  "inspect",
  "load_array",
  "load_builtin",
  "load_folder",
  "load_hf",
  "load_tfds",
  "prefetch",
  "read_mask",
  "read_picture",
  "save_array",
  "to_uint8",
]
