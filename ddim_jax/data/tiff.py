"""16-bit and float pictures of several channels, which Pillow cannot hold: TIFF through ``tifffile``.

Needs the ``tiff`` extra.
"""

import contextlib
import importlib.util
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

_OF_PILLOW = ("uint8", "uint16", "float32")
HINT = "TIFF files of several channels with more than 8 bits need: pip install 'ddim_jax[tiff]'"


def available() -> bool:
  """Whether ``tifffile`` is installed."""
  return importlib.util.find_spec("tifffile") is not None


def may_read(file: Any) -> bool:
  """Whether a file is TIFF by its first bytes, and ``tifffile`` is there to read it."""
  if not available():
    return False
  with contextlib.ExitStack() as stack:
    opened = stack.enter_context(Path(file).open("rb")) if isinstance(file, str | Path) else file
    opened.seek(0)
    return opened.read(3) in (b"II*", b"MM\0", b"II+")


def read(file: Any) -> np.ndarray:
  """The first page, ``[H, W, C]``, of any type and any number of channels.

  Raises:
    ValueError: If its axes are others, it is stored turned, or it is truncated.
  """
  import tifffile

  if not isinstance(file, str | Path):
    file.seek(0)
  with tifffile.TiffFile(file) as opened:
    page: Any = opened.pages[0]
    starts, lengths = np.array(page.dataoffsets), np.array(page.databytecounts)
    whole = len(starts) == len(lengths) > 0 and np.all(lengths > 0)
    if not whole or np.any(starts + lengths > opened.filehandle.size):
      raise ValueError("it is truncated")  # tifffile would show zeros
    axes, pixels = page.axes, np.asarray(page.asarray())
    if page.bitspersample != 8 * pixels.dtype.itemsize:
      raise ValueError(f"its numbers have {page.bitspersample} bits, which are not scaled")
    turned = getattr(page.tags.get("Orientation"), "value", 1)
  if turned != 1:
    raise ValueError(f"it is stored turned (orientation {int(turned)})")
  if axes not in ("YX", "YXS", "SYX"):
    raise ValueError(f"its axes are {axes}, not YX, YXS or SYX")
  if axes == "SYX":
    pixels = np.moveaxis(pixels, 0, 2)
  return pixels.reshape(*pixels.shape[:2], -1)


def check_writable(channels: int, dtype: str) -> None:
  """Raises ValueError if such pictures need ``tifffile``, and it is not installed; names it."""
  if not (channels == 1 and dtype in _OF_PILLOW) and not available():
    raise ValueError(HINT)


def write(file: BinaryIO, pixels: np.ndarray) -> None:
  """Writes ``[H, W, C]`` as TIFF; one channel of uint8, uint16 or float32 needs only Pillow.

  Raises:
    ValueError: As `check_writable`.
  """
  check_writable(pixels.shape[2], pixels.dtype.name)
  if pixels.shape[2] == 1 and pixels.dtype.name in _OF_PILLOW:
    from PIL import Image

    from ddim_jax import plots

    file.write(plots.encoded(Image.fromarray(np.ascontiguousarray(pixels[..., 0])), "TIFF"))
    return
  import tifffile

  photometric = "rgb" if pixels.shape[2] in (3, 4) else "minisblack"
  tifffile.imwrite(file, pixels, photometric=photometric, planarconfig="contig", metadata=None)
