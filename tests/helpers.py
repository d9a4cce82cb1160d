"""What several files of tests share: processes, random inputs and weights, archives, text in pictures."""

import contextlib
import functools
import gc
import io
import subprocess
import sys
import tarfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).parent.parent
"""The folder of the repository."""


def printed(code, environment):
  """What a Python process prints that runs this code."""
  command = [sys.executable, "-c", code]
  return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True).stdout


@contextlib.contextmanager
def small_file_system(folder, size):
  """An empty file system of so many bytes, such as "12m", at a folder; skips where none can be mounted."""
  command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
  mounted = subprocess.run(command, capture_output=True, check=False)
  if mounted.returncode:
    pytest.skip(f"cannot mount a small file system: {mounted.stderr.decode().strip()}")
  try:
    yield
  finally:
    gc.collect()  # a frame of an exception may still hold a file open
    subprocess.run(["umount", str(folder)], check=True)


def slow_but(quick, cases):
  """Cases of a parametrisation, slow but for those of which ``quick`` is true."""
  return [case if quick(case) else pytest.param(case, marks=pytest.mark.slow) for case in cases]


def draw(*shapes):
  """Normal numbers, ``f32[shape]`` for every shape."""
  rng = np.random.default_rng(0)
  return [jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes]


@functools.cache
def shapes(model, shape):
  """Shapes and dtypes of the variables."""
  return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(shape), jnp.ones((), jnp.int32))


def random_variables(model, shape):
  """Variables of ordinary size everywhere, so that every part of the network shows in its output."""
  rng = np.random.default_rng(0)

  def draw(leaf):
    noise = rng.standard_normal(leaf.shape).astype(np.float32)
    return noise / np.float32(np.prod(leaf.shape[:-1]) ** 0.5) if leaf.ndim > 1 else 0.5 + 0.1 * noise

  return jax.tree.map(draw, shapes(model, shape))


def cifar_archive(path, batches=2, rows=40, seed=0):
  """An archive of the official layout; returns the records of each member, ``u8[rows, 3073]``."""
  rng, records = np.random.default_rng(seed), {}
  with tarfile.open(path, "w:gz") as archive:
    names = [f"data_batch_{i + 1}.bin" for i in range(batches)] + ["test_batch.bin"]
    for name in [*names, "batches.meta.txt", "readme.html"]:
      if name in names:
        rows_ = rng.integers(0, 256, (rows, 3073), np.uint8)
        rows_[:, 0] %= 10
        records[name], payload = rows_, rows_.tobytes()
      else:
        payload = b"airplane\n"
      member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
      member.size = len(payload)
      archive.addfile(member, io.BytesIO(payload))
  return records


def _written(text, size):
  """A text, as Pillow's own font writes it, ``u8[H, W]``."""
  font = ImageFont.load_default(size=size)
  page = Image.new("L", (int(font.getlength(text)) + 2, 2 * size), 255)
  ImageDraw.Draw(page).text((1, size), text, fill=40, font=font, anchor="lm")
  return np.asarray(page)


def likeness(picture, text, size=12):
  """How well a text agrees with the place of a picture, ``u8[H, W, 3]``, that is most like it; at most 1."""
  glyphs = 255.0 - _written(text, size)
  rows, columns = (np.flatnonzero(glyphs.any(axis=axis)) for axis in (1, 0))
  glyphs = glyphs[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
  page = np.lib.stride_tricks.sliding_window_view(255.0 - picture[..., 0], glyphs.shape)
  dots = np.einsum("abij,ij->ab", page, glyphs)
  sizes = np.sqrt(np.einsum("abij,abij->ab", page, page)) * np.linalg.norm(glyphs)
  return float((dots / np.maximum(sizes, 1)).max())
