"""What a data set holds, said before training: in words, and as a contact sheet."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ddim_jax import plots
from ddim_jax.data import sources
from ddim_jax.data.arrays import load_array
from ddim_jax.data.batches import batch_indices
from ddim_jax.data.folders import load_folder
from ddim_jax.data.scaling import BYTES, Scaling, to_uint8
from ddim_jax.data.sources import Source

_CHUNK, _LOOKED_AT = 256, 4096
_THUMBNAIL = 64
_DEVIATIONS = 3
"""What has no limits is drawn from minus to plus this many standard deviations."""


class Report(NamedTuple):
  """What a data set holds; ``str(report)`` is readable.

  Attributes:
    name: What it is.
    number: Of examples that can be used.
    shape: Of an example, as it is trained on.
    dtype: Of the stored values.
    scaling: How they become data.
    values: Lowest and highest value of those looked at.
    looked_at: Number of examples that these were found in.
    modes: Number of pictures by mode, where they are files.
    sizes: Number of pictures by (width, height) in their files.
    deep: Lowest and highest number in files with more than 8 bits, or None.
    frames: Number of pictures with several frames or pages, of which the first is used.
    classes: Number of examples by class.
    conditions: Length of the vector that each example carries, 0 for none.
    skipped: Name and reason of everything that is not used.
    sheet: A contact sheet, ``u8[..., 1 or 3]``, or None if examples are no images.
  """

  name: str
  number: int
  shape: tuple[int, ...]
  dtype: str
  scaling: Scaling
  values: tuple[float, float]
  looked_at: int
  modes: Mapping[str, int]
  sizes: Mapping[tuple[int, int], int]
  deep: tuple[float, float] | None
  frames: int
  classes: Mapping[str, int]
  conditions: int
  skipped: tuple[tuple[str, str], ...]
  sheet: np.ndarray | None

  def __str__(self) -> str:
    shape = "x".join(map(str, self.shape))
    some = "" if self.looked_at == self.number else f", in {self.looked_at:,} of them"
    lines = [f"data        {self.name}: {self.number:,} examples of {shape}, {self.dtype}"]
    if self.sizes:
      lines.append(f"in files    {_counted({f'{w}x{h}': n for (w, h), n in self.sizes.items()})}")
      lines.append(f"modes       {_counted(self.modes)}")
    if self.deep:
      lines.append(f"            files of more than 8 bits hold {self.deep[0]:g} to {self.deep[1]:g}")
    if self.frames:
      lines.append(f"            {self.frames:,} have several frames or pages; the first is used")
    lines.append(f"values      {self.values[0]:g} to {self.values[1]:g}{some}; {self.scaling}")
    if self.classes:
      lines.append(f"classes     {len(self.classes)}: {_counted(self.classes)}")
    if self.conditions:
      lines.append(f"conditions  {self.conditions} numbers an example")
    reasons: dict[str, list[str]] = {}
    for name, reason in self.skipped:
      reasons.setdefault(reason, []).append(name)
    for reason, names in sorted(reasons.items(), key=lambda item: -len(item[1])):
      lines.append(f"skipped     {len(names):,}: {reason} ({_listed(names)})")
    return "\n".join(lines)


def _counted(numbers: Mapping[str, int], most: int = 12) -> str:
  ordered = sorted(numbers.items(), key=lambda item: -item[1])
  parts = [f"{name} ({number:,})" for name, number in ordered[:most]]
  return ", ".join(parts + [f"and {len(ordered) - most:,} more"] * (len(ordered) > most))


def _listed(names: list[str], most: int = 3) -> str:
  return ", ".join(names[:most]) + ", ..." * (len(names) > most)


def inspect(what: Source | np.ndarray | str | Path, **options: Any) -> Report:
  """Reads a data set as for training, and says what it holds.

  Args:
    what: A source, an array, a ``.npy`` or ``.npz`` file, or a folder of pictures, of which broken ones are
      skipped and counted.
    **options: As of `load_folder`, `load_array` or `in_memory`. Pictures become thumbnails of
      64 pixels unless ``image_size`` is given.

  Raises:
    ValueError: If it cannot be read.
  """
  source = _source(what, options)
  labels = source.labels
  order = batch_indices(source.size, min(source.size, _LOOKED_AT), 0, 0)  # a fair sample
  limits = []
  for start in range(0, len(order), _CHUNK):
    values = source.read(np.sort(order[start : start + _CHUNK]))[0]
    limits.append((float(values.min()), float(values.max())))
  if labels is None and source.classes:
    parts = [np.arange(i, min(i + _CHUNK, source.size)) for i in range(0, source.size, _CHUNK)]
    labels = np.concatenate([source.read(part)[1] for part in parts])
  counts = np.zeros(0, int) if labels is None else np.bincount(labels, minlength=len(source.classes))
  return Report(
    name=source.name,
    number=source.size,
    shape=source.shape,
    dtype=source.scaling.dtype,
    scaling=source.scaling,
    values=(min(low for low, _ in limits), max(high for _, high in limits)),
    looked_at=len(order),
    modes=source.found.modes,
    sizes=source.found.sizes,
    deep=source.found.values,
    frames=source.found.frames,
    classes={name: int(count) for name, count in zip(source.classes, counts, strict=False)},
    conditions=0 if source.conditions is None else source.conditions.shape[1],
    skipped=source.found.skipped,
    sheet=contact_sheet(source) if len(source.shape) == 3 else None,
  )


def _source(what: Source | np.ndarray | str | Path, options: dict[str, Any]) -> Source:
  if isinstance(what, Source):
    return what
  if isinstance(what, np.ndarray):
    return sources.in_memory("array", what, **options)
  if Path(what).suffix.lower() in (".npy", ".npz"):
    return load_array(what, **options)
  usual: dict[str, Any] = {"image_size": _THUMBNAIL, "fit": "pad", "skip_broken": True}
  return load_folder(what, **(usual | options))


def contact_sheet(source: Source, number: int = 64) -> np.ndarray:
  """Images of a source drawn at random, the same at every call, ``u8[..., 1 or 3]``.

  Raises:
    ValueError: If its examples are no images ``[H, W, C]``.
  """
  if len(source.shape) != 3:
    raise ValueError(f"a contact sheet is of images [H, W, C], not of examples of shape {source.shape}")
  values = source.read(batch_indices(source.size, min(number, source.size), 0, 0))[0]
  return plots.grid(drawable(source.scaling, values))


def drawable(scaling: Scaling, values: np.ndarray) -> np.ndarray:
  """Stored values as bytes to look at, ``u8[...]``; what has no limits, from -3 to 3 standard deviations."""
  if scaling == BYTES:
    return values
  data = np.asarray(scaling.to_data(values))
  return to_uint8(data if scaling.bounded else data / _DEVIATIONS)
