"""Where results go, and images on disk: in constant memory, an interruption goes on where it was."""

import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ddim_jax import console, places, plots
from ddim_jax.atomic import alone, replacing, reserve, writing
from ddim_jax.data import tiff

Draw = Callable[[np.ndarray], np.ndarray]
"""``indices -> images``, see `ddim_jax.models.drawing.numbered_pictures`."""


def place(out: Path | None, model: str, name: str, suffixes: Sequence[str] = (".png",)) -> Path:
  """Where a result goes: as asked for, else into the folder of the run, else here.

  Args:
    out: As asked for, or None.
    model: The model as it was named on the command line.
    name: What the file is called if nothing was asked for.
    suffixes: What it may end in; "" is a folder.

  Raises:
    ValueError: If it ends in something else, or could not be written, as `places.check_writable`.
  """
  if out is None:
    workdir = places.local(model, "model") if model.startswith("~") else Path(model)
    out = (workdir if (workdir / "checkpoints").is_dir() else Path()) / name
  elif out.suffix.lower() not in suffixes or out.name.lower() in suffixes:
    named = " or ".join(suffix for suffix in suffixes if suffix)
    raise ValueError(f"out must end in {named}{', or be a folder' * ('' in suffixes)}, got {out}")
  found = places.local(out, "out")
  places.check_writable(found, "out", folder=not found.suffix)
  return found


def write_json(path: Path, content: Any) -> None:
  """Writes JSON, whole or not at all; creates the folder."""
  with replacing(path) as partial:
    partial.write_text(json.dumps(content, indent=1) + "\n")


def differences(found: dict[str, Any], wanted: dict[str, Any]) -> str:
  """In which settings two records differ, in words; "" if in none."""
  names = (name for name in dict.fromkeys([*wanted, *found]) if found.get(name) != wanted.get(name))
  return "; ".join(f"{name} {found.get(name)!r}, not {wanted.get(name)!r}" for name in names)


def _same_settings(path: Path, settings: dict[str, Any], occupied: bool) -> None:
  """Records the settings at ``path``, or checks that they are the recorded ones.

  Raises:
    ValueError: If there are images of unknown origin, or of other settings; names what differs.
  """
  settings = {name: value for name, value in settings.items() if name != "model"}  # its weights decide
  if not path.exists():
    if occupied:
      raise ValueError(f"there are images without {path}: choose another out or remove them")
    write_json(path, settings)
    return
  found = json.loads(path.read_text())
  if wrong := differences(found, settings):
    raise ValueError(f"{path} was begun with {wrong}: choose another out or remove it")


def _blocks(
  first: int, num: int, size: int, draw: Draw, missing: Callable[[np.ndarray], bool]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Yields ``(indices, images)`` of blocks that are missing, with a progress bar."""
  with console.bar(total=num, initial=first, unit="image") as bar:
    for start in range(first, num, size):
      indices = np.arange(start, start + size)
      wanted = indices[indices < num]
      if missing(wanted):
        yield wanted, draw(indices)[: len(wanted)]
      bar.update(len(wanted))


def write_files(
  folder: Path, num: int, size: int, draw: Draw, settings: dict[str, Any], ending: str = ".png"
) -> None:
  """Writes images 0..num-1 as numbered files, PNG or of another type TIFF; those already there stay.

  Args:
    folder: Where to; created.
    num: How many images in all.
    size: Images that ``draw`` takes at a time.
    draw: The sampler.
    settings: What decides the images, kept in ``settings.json``.
    ending: ".png" or ".tif".
  """
  folder.mkdir(parents=True, exist_ok=True)
  name = lambda i: folder / f"{i:06d}{ending}"
  missing = lambda indices: not all(name(i).exists() for i in indices)
  with alone(folder, "is drawing into it"):
    _same_settings(folder / "settings.json", settings, occupied=any(folder.glob(f"*{ending}")))
    for indices, images in _blocks(0, num, size, draw, missing):
      for i, image in zip(indices, images, strict=True):
        if ending == ".tif":
          with replacing(name(i)) as partial, partial.open("wb") as file:
            tiff.write(file, image)
        else:
          made = settings | {"image": int(i)}
          plots.write(name(i), plots.to_image(image), made)  # a PNG that is there is whole


def write_npz(
  path: Path,
  num: int,
  size: int,
  draw: Draw,
  settings: dict[str, Any],
  shape: tuple[int, ...],
  dtype: str = "uint8",
) -> None:
  """Writes images 0..num-1 as ``arr_0``, ``dtype[num, *shape]``, of an npz file.

  Its ``settings`` say how they were made, as JSON: ``json.loads(str(np.load(path)["settings"]))``.
  The images collect in a memory-mapped file beside it, whose progress is recorded after every block.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  with alone(path, "is drawing into it"):
    _write_npz(path, num, size, draw, settings | {"num": num}, shape, dtype)


def _write_npz(
  path: Path, num: int, size: int, draw: Draw, settings: dict[str, Any], shape: tuple[int, ...], dtype: str
) -> None:
  record = path.with_suffix(".settings.json")
  _same_settings(record, settings, occupied=path.exists())
  if path.exists():
    return
  array_file, done_file = path.with_suffix(".partial.npy"), path.with_suffix(".partial.txt")
  done = int(done_file.read_text()) if done_file.exists() else 0
  mode = "r+" if done else "w+"
  with writing(array_file):
    array = np.lib.format.open_memmap(array_file, mode, dtype=np.dtype(dtype), shape=(num, *shape))
    if not done:
      reserve(array_file)
  for indices, images in _blocks(done, num, size, draw, lambda indices: True):
    array[indices[0] : indices[-1] + 1] = images
    array.flush()
    with replacing(done_file) as partial:
      partial.write_text(str(indices[-1] + 1))
  del array
  with replacing(path) as whole, zipfile.ZipFile(whole, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
    archive.write(array_file, "arr_0.npy")
    with archive.open("settings.npy", "w") as entry:
      np.save(entry, json.dumps(plots.with_steps(settings)))
  array_file.unlink()
  done_file.unlink(missing_ok=True)
