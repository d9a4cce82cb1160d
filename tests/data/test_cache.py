import errno
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from ddim_jax import data
from ddim_jax.data import pictures, tiff
from tests.conftest import ROOT
from tests.data import corpus


@pytest.fixture
def folder(tmp_path):
  place = tmp_path / "pictures"
  place.mkdir()
  for i in range(6):
    Image.fromarray(corpus.RGB + np.uint8(i)).save(place / f"{i}.png")
  return place


@pytest.fixture
def decoded(monkeypatch):
  """The names of the files decoded so far."""
  names, decode = [], pictures.decode

  def count(file, *rest):
    names.append(str(file).rsplit("/", 1)[-1])
    return decode(file, *rest)

  monkeypatch.setattr("ddim_jax.data.folders.decode", count)
  return names


def pixels(source):
  return source.read(np.arange(source.size))[0]


def test_a_second_start_decodes_nothing(folder, tmp_path, decoded):
  first = data.load_folder(folder, 8, cache=tmp_path / "cache")
  assert sorted(decoded) == [f"{i}.png" for i in range(6)]
  again = data.load_folder(folder, 8, cache=tmp_path / "cache")
  assert len(decoded) == 6
  np.testing.assert_array_equal(pixels(again), pixels(data.load_folder(folder, 8)))
  assert again.found == first.found


def replace_with_same_size_and_time(folder):
  """The worst case: as a careful copying program does it."""
  path = folder / "3.png"
  status, content = path.stat(), path.read_bytes()
  Image.fromarray(corpus.RGB[::-1]).save(path)
  short = len(content) - len(path.read_bytes())
  path.write_bytes(path.read_bytes() + bytes(max(0, short)))
  os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def move_a_picture(folder):
  (folder / "a").mkdir()
  (folder / "b").mkdir()
  for i in range(6):
    (folder / f"{i}.png").rename(folder / "ab"[i % 2] / f"{i}.png")


CHANGES = {
  "replaced": lambda folder: Image.fromarray(corpus.RGB[::-1]).save(folder / "3.png"),
  "replaced in secret": replace_with_same_size_and_time,
  "added": lambda folder: Image.fromarray(corpus.RGB).save(folder / "9.png"),
  "removed": lambda folder: (folder / "0.png").unlink(),
  "renamed": lambda folder: (folder / "0.png").rename(folder / "7.png"),
  "moved into classes": move_a_picture,
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_pictures_are_noticed(folder, tmp_path, change):
  data.load_folder(folder, 8, cache=tmp_path / "cache")
  CHANGES[change](folder)
  source, fresh = data.load_folder(folder, 8, cache=tmp_path / "cache"), data.load_folder(folder, 8)
  np.testing.assert_array_equal(pixels(source), pixels(fresh))
  assert source.classes == fresh.classes


@pytest.mark.parametrize(
  "options",
  [{"image_size": 6}, {"image_size": (8, 6)}, {"crop": 10}, {"fit": "pad"}, {"channels": 1},
   {"values": (0, 9999)}, {"bits": 16, "values": (0, 65535)}, {"skip_broken": True}],
)  # fmt: skip
def test_what_decides_the_pixels_is_part_of_the_name(folder, tmp_path, options, decoded):
  data.load_folder(folder, 8, cache=tmp_path / "cache")
  source = data.load_folder(folder, **({"image_size": 8} | options), cache=tmp_path / "cache")
  assert len(decoded) == 12
  np.testing.assert_array_equal(
    pixels(source), pixels(data.load_folder(folder, **({"image_size": 8} | options)))
  )


def deep(folder):
  """Pictures of three 16-bit channels, which only ``tifffile`` reads, among others."""
  tifffile = pytest.importorskip("tifffile")
  tifffile.imwrite(folder / "deep.tif", np.uint16(corpus.RGB) * 257, photometric="rgb")


@pytest.mark.parametrize("change", ["tifffile installed", "another Pillow", "AVIF added"])
def test_what_can_be_read_now_is_part_of_the_name(folder, tmp_path, change, monkeypatch, decoded):
  """What could not be read before is not left out for ever, nor is what has become of it then."""
  deep(folder)
  options = {
    "image_size": 8,
    "bits": 16,
    "values": (0, 65535),
    "skip_broken": True,
    "cache": tmp_path / "cache",
  }
  with monkeypatch.context() as before:
    if change == "tifffile installed":
      before.setattr(tiff, "available", lambda: False)
    elif change == "another Pillow":
      before.setattr(pictures.PIL, "__version__", "11.0")
    else:
      before.setattr(pictures, "formats", lambda: ("PNG", "TIFF"))
    first = data.load_folder(folder, **options)
  assert first.size == (6 if change == "tifffile installed" else 7)
  number = len(decoded)
  assert data.load_folder(folder, **options).size == 7
  assert len(decoded) == number + 7


@pytest.mark.parametrize("damage", ["short", "gone", "no json", "other json"])
def test_a_damaged_cache_is_made_again(folder, tmp_path, damage):
  expected = pixels(data.load_folder(folder, 8, cache=tmp_path / "cache"))
  (place,) = (path for path in (tmp_path / "cache").iterdir() if path.is_dir())
  if damage == "short":
    os.truncate(place / "pixels.bin", 100)
  elif damage == "gone":
    (place / "pixels.bin").unlink()
  else:
    (place / "about.json").write_text("{" if damage == "no json" else '{"shape": 3}')
  for _ in range(2):
    np.testing.assert_array_equal(pixels(data.load_folder(folder, 8, cache=tmp_path / "cache")), expected)


def test_nothing_is_left_of_an_attempt_that_failed(folder, tmp_path, monkeypatch):
  cache = tmp_path / "cache"
  (folder / "5.png").write_bytes(b"")
  with pytest.raises(ValueError, match=r"5\.png"):
    data.load_folder(folder, 8, cache=cache)
  (folder / "5.png").unlink()

  def full(descriptor):
    raise OSError(errno.ENOSPC, "No space left on device")

  with monkeypatch.context() as patch:
    patch.setattr(os, "fsync", full)  # a full disk, which a test cannot make
    with pytest.raises(OSError, match=r"the cache cannot be written: No space left on device: '.*cache'"):
      data.load_folder(folder, 8, cache=cache)
  (cache / ".partial-of-a-dead-process").mkdir()
  assert [path.name for path in cache.iterdir() if path.name != ".lock"] == [".partial-of-a-dead-process"]
  assert data.load_folder(folder, 8, cache=cache).size == 5
  assert not list(cache.glob(".partial*"))


@pytest.mark.slow
def test_processes_share_a_cache_and_one_decodes(folder, tmp_path):
  code = (
    "import sys, numpy as np; from ddim_jax import data; told = [];"
    "source = data.load_folder(sys.argv[1], 8, cache=sys.argv[2], progress=lambda *x: told.append(x));"
    "print(len(told), source.read(np.arange(6))[0].sum())"
  )
  command = [sys.executable, "-c", code, folder, tmp_path / "cache"]
  running = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
  printed = sorted(process.communicate(timeout=120)[0].split() for process in running)
  assert [count for count, _ in printed] == ["0", "6"]
  assert printed[0][1] == printed[1][1]
