"""Many images to disk in constant memory: an interrupted run goes on where it was."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tqdm

from ddim_jax import plots

Draw = Callable[[np.ndarray], np.ndarray]
"""``indices -> images``, see `experiments.drawing.numbered_pictures`."""


def _replace_text(path: Path, text: str) -> None:
  partial = path.with_name(path.name + ".tmp")
  partial.write_text(text)
  partial.replace(path)


def _same_settings(path: Path, settings: dict, occupied: bool) -> None:
  """Records the settings at ``path``, or checks that they are the recorded ones.

  Raises:
    ValueError: If there are images of unknown origin, or of other settings; names what differs.
  """
  if not path.exists():
    if occupied:
      raise ValueError(f"there are images without {path}: choose another --out or remove them")
    _replace_text(path, json.dumps(settings, indent=1))
    return
  found = json.loads(path.read_text())
  if wrong := [f"{k} {found.get(k)!r}, not {v!r}" for k, v in settings.items() if found.get(k) != v]:
    raise ValueError(f"{path} was begun with {'; '.join(wrong)}: choose another --out or remove it")


def _blocks(first: int, num: int, size: int, draw: Draw, missing: Callable[[np.ndarray], bool]):
  """Yields ``(indices, images)`` of blocks that are missing, with a progress bar."""
  with tqdm.tqdm(total=num, initial=first, unit="image", dynamic_ncols=True) as bar:
    for start in range(first, num, size):
      indices = np.arange(start, start + size)
      wanted = indices[indices < num]
      if missing(wanted):
        yield wanted, draw(indices)[: len(wanted)]
      bar.update(len(wanted))


def write_pngs(folder: Path, num: int, size: int, draw: Draw, settings: dict) -> None:
  """Writes images 0..num-1 as numbered PNG files; those already there stay.

  Args:
    folder: Where to; created.
    num: How many images in all.
    size: Images that ``draw`` takes at a time.
    draw: The sampler.
    settings: What decides the images, kept in ``settings.json``.
  """
  folder.mkdir(parents=True, exist_ok=True)
  _same_settings(folder / "settings.json", settings, occupied=any(folder.glob("*.png")))
  name = lambda i: folder / f"{i:06d}.png"
  missing = lambda indices: not all(name(i).exists() for i in indices)
  for indices, images in _blocks(0, num, size, draw, missing):
    for i, image in zip(indices, images, strict=True):
      partial = name(i).with_suffix(".partial")
      plots.to_image(image).save(partial, "PNG")
      partial.replace(name(i))  # a PNG that is there is whole


def write_npz(path: Path, num: int, size: int, draw: Draw, settings: dict, shape: tuple[int, ...]) -> None:
  """Writes images 0..num-1 as ``arr_0``, ``u8[num, H, W, C]``, of an npz file.

  They collect in a memory-mapped file beside it, whose progress is recorded after every block.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  settings = settings | {"num": num}
  record = path.with_suffix(".settings.json")
  _same_settings(record, settings, occupied=path.exists())
  if path.exists():
    return
  array_file, done_file = path.with_suffix(".partial.npy"), path.with_suffix(".partial.txt")
  done = int(done_file.read_text()) if done_file.exists() else 0
  mode = "r+" if done else "w+"
  array = np.lib.format.open_memmap(array_file, mode, dtype=np.uint8, shape=(num, *shape))
  for indices, images in _blocks(done, num, size, draw, lambda indices: True):
    array[indices[0] : indices[-1] + 1] = images
    array.flush()
    _replace_text(done_file, str(indices[-1] + 1))
  del array
  whole = path.with_suffix(".partial.npz")
  with zipfile.ZipFile(whole, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
    archive.write(array_file, "arr_0.npy")
  whole.replace(path)
  array_file.unlink()
  done_file.unlink(missing_ok=True)
