"""Decoded pixels in a folder, under a name made of what decides them: replaced pictures get another one."""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ddim_jax.atomic import kept, replacing
from ddim_jax.data.sources import Found

_VERSION = 2
"""Counted up when the same pictures would be decoded to other pixels."""
Make = Callable[[Callable[[np.ndarray], Any]], tuple[np.ndarray, Found]]
"""``write(pixels)`` each kept picture in turn; returns the indices of those, and what was found."""


@contextlib.contextmanager
def only_one(path: Path) -> Iterator[None]:
  """Holds a lock that other processes of this machine wait for, and that dies with its process.

  A file system without locks has none.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  with path.open("w") as file:
    with contextlib.suppress(OSError):
      fcntl.flock(file, fcntl.LOCK_EX)
    yield


def cached(folder: Path, name: str, identity: Any, make: Make) -> tuple[np.ndarray, np.ndarray, Found]:
  """Pixels from the cache, or made and put there, whole or not at all.

  Args:
    folder: The cache; created.
    name: For people, part of the name in the cache.
    identity: What decides the pixels, for JSON.
    make: Makes them.

  Returns:
    ``(pixels: dtype[n, H, W, C], memory-mapped; indices of the pictures: i64[n]; what was found)``.

  Raises:
    OSError: If the cache cannot be written; names it. Nothing is left of the attempt.
  """
  digest = hashlib.sha256(json.dumps([_VERSION, identity]).encode()).hexdigest()
  plain = re.sub(r"\W+", "-", Path(name).name, flags=re.ASCII).strip("-")[:40]
  place = folder / f"{plain}-{digest[:20]}"
  with only_one(folder / ".lock"):
    if (found := _open(place)) is None:
      _write(folder, place, make)
      found = _open(place)
  if found is None:
    raise OSError(f"{place} was written and cannot be read")
  return found


def _open(place: Path) -> tuple[np.ndarray, np.ndarray, Found] | None:
  """What lies there, or None if it is nothing, or damaged."""
  try:
    about = json.loads((place / "about.json").read_text())
    shape, dtype = tuple(about["shape"]), np.dtype(about["dtype"])
    if (place / "pixels.bin").stat().st_size != int(np.prod(shape)) * dtype.itemsize:
      return None
    pixels = np.memmap(place / "pixels.bin", dtype, "r", shape=shape)
    sizes = {(height, width): number for height, width, number in about["sizes"]}
    values = None if about["values"] is None else tuple(about["values"])
    skipped = tuple((name, reason) for name, reason in about["skipped"])
    used = np.setdiff1d(np.arange(about["all"]), np.array(about["left_out"], np.int64))
    return pixels, used, Found(about["modes"], sizes, values, about["frames"], skipped)
  except (OSError, ValueError, KeyError, TypeError):
    return None


def _write(folder: Path, place: Path, make: Make) -> None:
  for left in folder.glob(".partial-*"):  # of processes that died: the lock is ours
    shutil.rmtree(left, ignore_errors=True)
  partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder))
  try:
    shapes: list[tuple[str, tuple[int, ...]]] = []
    with (partial / "pixels.bin").open("wb") as file:

      def write(pixels: np.ndarray) -> None:
        if not shapes:
          shapes.append((pixels.dtype.name, pixels.shape))
        file.write(pixels.tobytes())

      used, found = make(write)
      file.flush()
      os.fsync(file.fileno())
    dtype, shape = shapes[0]
    everything = int(used[-1]) + 1
    about = {
      "dtype": dtype, "shape": [len(used), *shape], "all": everything, "modes": found.modes,
      "left_out": np.setdiff1d(np.arange(everything), used).tolist(), "values": found.values,
      "frames": found.frames, "skipped": found.skipped,
      "sizes": [[*size, number] for size, number in found.sizes.items()],
    }  # fmt: skip
    (partial / "about.json").write_text(json.dumps(about))
    shutil.rmtree(place, ignore_errors=True)
    partial.rename(place)
  except OSError as error:
    raise OSError(error.errno, f"the cache cannot be written: {error.strerror}", str(folder)) from error
  finally:
    shutil.rmtree(partial, ignore_errors=True)


def arrays(
  path: Path, shape: tuple[int, ...], identity: Any, make: Callable[[], tuple[np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray]:
  """Images ``u8[*shape]`` and labels ``i32[N]`` from a .npz file, or made and put there if it can be written.

  What is damaged, of another shape or of another ``identity`` (what decides them, for JSON) is made again.
  """
  said = json.dumps(identity)

  def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with path.open("rb") as raw, np.load(raw) as found:
      images, labels = found["images"], found["labels"]
      if (images.shape, labels.shape, str(found["identity"])) != (shape, shape[:1], said):
        raise ValueError(f"{path} holds something else")
      return images, labels

  def write(path: Path, found: tuple[np.ndarray, np.ndarray]) -> None:
    with contextlib.suppress(OSError), replacing(path) as partial, partial.open("wb") as file:
      np.savez(file, images=found[0], labels=found[1], identity=said)

  return kept(path, read, make, write)


def file_identity(root: Path, file: Path) -> list[str | int]:
  """What changes with the content of a file below a folder: its name, size and times."""
  try:
    status = (root / file).stat()
  except OSError:  # a dead link
    return [str(file)]
  return [str(file), status.st_size, status.st_mtime_ns, status.st_ctime_ns]
