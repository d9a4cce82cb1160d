"""The one reader of pictures: any file that Pillow knows becomes an array of the form asked for.

What cannot be read correctly is refused by its name, in one line: damaged and truncated files, decompression
bombs, and numbers for which nobody has said what is black and what is white.
"""

import functools
import math
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import PIL
from PIL import Image, UnidentifiedImageError

from ddim_jax.data import tiff
from ddim_jax.data.forms import Form, converted, make_form, part, resize
from ddim_jax.places import local

SUFFIXES = frozenset(
  f".{end}"
  for end in (
    "png", "apng", "jpg", "jpeg", "jpe", "jfif", "webp", "bmp", "gif", "tif", "tiff", "ppm", "pgm", "pbm",
    "pnm", "pfm", "avif", "jp2",
  )
)  # fmt: skip
"""Endings of the files that are taken for pictures; what a file holds is decided by its content."""
_FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF", "JPEG2000")
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_WIDE_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")
_TURNS = {
  2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_90,
}  # fmt: skip
"""By the value of the EXIF tag Orientation."""
_ORIENTATION, _PHOTOMETRIC, _SAMPLE_FORMAT = 0x0112, 0x0106, 0x0153
_DRAFT_GAP = 2
"""JPEG files are decoded at no less than this many times the size asked for."""


class Held(NamedTuple):
  """What a file held.

  Attributes:
    mode: Pillow's mode, such as "RGB", "P" or "I;16".
    width: In pixels, turned upright.
    height: In pixels, turned upright.
    frames: Whether it has more than one frame or page; the first is read.
    values: Lowest and highest value as stored, of pictures with more than 8 bits; else None.
  """

  mode: str
  width: int
  height: int
  frames: bool
  values: tuple[float, float] | None


def shown(name: object) -> str:
  """A name that fits into one line of any encoding."""
  text = str(name)
  return text if text.isprintable() else ascii(text)


def read_picture(
  file: str | Path | BinaryIO,
  *,
  channels: int = 3,
  dtype: str = "uint8",
  values: tuple[float, float] | None = None,
  size: tuple[int, int] | None = None,
) -> np.ndarray:
  """A picture as an array, upright as its EXIF says; of several frames or pages, the first.

  Transparent parts show white where no alpha channel is asked for.

  Args:
    file: A path, or an open binary file.
    channels: 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA; other numbers for TIFF files of as many channels.
    dtype: ``"uint8"``: pictures with more bits are scaled to 8. ``"uint16"``: pictures with 8 bits are scaled
      to 16 (times 257). ``"float32"``: the numbers of 16-bit, 32-bit and float files as they are.
    values: For uint8, the numbers that become 0 and 255 in pictures with more than 8 bits: 0 and 65535 of 16
      bits by default, and to be said for 32-bit integers and floating point.
    size: ``(height, width)`` to fit the picture to: its largest central part of that shape, resized.

  Returns:
    ``dtype[H, W, channels]``.

  Raises:
    ValueError: If the file cannot be read right; names the file.
  """
  file = local(file) if isinstance(file, str | Path) else file
  return decode(file, make_form(size, channels=channels, dtype=dtype, values=values))[0]


def read_mask(path: str | Path, size: tuple[int, int]) -> np.ndarray:
  """True where a picture is kept (black in the mask), ``bool[H, W, 1]``; fitted as by `read_picture`.

  Raises:
    ValueError: As `read_picture`, or if nothing is white.
  """
  return as_mask(read_picture(path, channels=1, size=size), path)


def as_mask(pixels: np.ndarray, name: object) -> np.ndarray:
  """Grey pixels ``u8[H, W, 1]`` as a mask, see `read_mask`; ValueError if nothing is white."""
  kept: np.ndarray = pixels < 128
  if kept.all():
    raise ValueError(f"{shown(name)} must have white pixels, where to paint; all are black")
  return kept


def decode(file: Any, form: Form, name: object = None) -> tuple[np.ndarray, Held]:
  """A picture in a form, and what the file held.

  Raises:
    ValueError: If it cannot be read right; names the file, or ``name`` where it has none.
  """
  name = shown(name or (file if isinstance(file, str | Path) else getattr(file, "name", file)))
  try:
    try:
      with Image.open(file, formats=formats()) as image:
        pixels, held = _read(image, form)
    except (UnidentifiedImageError, _TooDeepError):
      if not tiff.may_read(file):
        raise
      pixels = converted(tiff.read(file), form)
      height, width = pixels.shape[:2]
      held = Held(str(pixels.dtype), width, height, False, _limits(pixels))
    return resize(pixels, form, (held.height, held.width)), held
  except Exception as error:  # Pillow raises a dozen types on damaged files
    raise ValueError(f"{name} cannot be used: {_reason(error)}") from error


class _TooDeepError(ValueError):
  """Pillow would read only 8 bits of what was asked for in full."""


def _reason(error: Exception) -> str:
  if isinstance(error, UnidentifiedImageError):
    return "it is no picture of a kind that can be read"
  if isinstance(error, OSError) and error.strerror:
    return error.strerror
  return shown(" ".join(str(error).split())) or type(error).__name__


@functools.cache
def formats() -> tuple[str, ...]:
  """Formats of pictures that this Pillow can read; others, such as EPS, would start programs."""
  Image.init()
  return tuple(name for name in _FORMATS if name in Image.OPEN)


def readers() -> list[str]:
  """What decides what a file becomes, besides the file: with another version or package it may be read."""
  return [PIL.__version__, *formats(), "tifffile" * tiff.available()]


def _read(image: Image.Image, form: Form) -> tuple[np.ndarray, Held]:
  """The pixels, upright, possibly decoded smaller than they are stored; and what the file held."""
  mode, whole, jpeg = image.mode, image.size, image.format in ("JPEG", "MPO")
  if form.dtype != "uint8" and mode not in _WIDE_MODES and _is_deep(image):
    raise _TooDeepError(f"it has several channels of more than 8 bits; {tiff.HINT}")
  tags, tiles = getattr(image, "tag_v2", {}), getattr(image, "tile", None)
  signed = 2 in tags.get(_SAMPLE_FORMAT, ())
  if signed and mode not in _WIDE_MODES:
    raise ValueError("its numbers are signed, of 8 bits")
  if form.dtype == "uint8" and form.values is None and tiles and "I;12" in _arguments(tiles[0]):
    form = form._replace(values=(0, 4095))
  frames = bool(getattr(image, "is_animated", False))
  if jpeg:
    turned = _orientation(image) in (5, 6, 7, 8)
    _draft(image, form, turned)
    whole = whole[::-1] if turned else whole
  image.load()
  if (turn := _TURNS.get(_orientation(image))) is not None:
    image = image.transpose(turn)
  width, height = whole if jpeg else image.size
  if mode not in _WIDE_MODES:
    pixels = converted(_channels(image, form.channels), form)
    return pixels, Held(mode, width, height, frames, None)
  if image.has_transparency_data:
    raise ValueError("it has more than 8 bits and a transparent value")
  if tags.get(_PHOTOMETRIC) == 0:
    raise ValueError("it has more than 8 bits and 0 for white")
  pixels = np.asarray(image)[..., None]
  if pixels.dtype.kind in "iu" and (mode != "I" or image.format in ("PPM", "PNG")):
    pixels = pixels.astype(np.uint16)  # some of Pillow's readers give 16 bits as 32
  elif mode == "I" and not signed:
    pixels = pixels.view(np.uint32)
  return converted(pixels, form), Held(mode, width, height, frames, _limits(pixels))


def _orientation(image: Image.Image) -> int:
  block = image.info.get("exif") or b""
  if block.removeprefix(b"Exif\0\0")[:4] not in (b"", b"II*\0", b"MM\0*"):
    raise ValueError("its EXIF block is damaged, so that nobody knows what is up")
  found: int = image.getexif().get(_ORIENTATION, 1)
  return found


def _is_deep(image: Image.Image) -> bool:
  """Whether a picture with 8 bits for Pillow has more in the file."""
  tiles = getattr(image, "tile", None)
  options = _arguments(tiles[0]) if tiles else ()
  return any(";16" in o if isinstance(o, str) else image.format == "PPM" and o > 255 for o in options)


def _arguments(tile: Any) -> tuple[Any, ...]:
  """What Pillow's decoder of a part of a file is told, such as how many bits a number has."""
  return tile.args if isinstance(tile.args, tuple) else (tile.args,)


def _draft(image: Image.Image, form: Form, turned: bool) -> None:
  """Lets the JPEG decoder leave out what resizing would average away: several times as fast."""
  if form.size is None:
    return
  upright = (image.width, image.height) if turned else (image.height, image.width)
  scales = [n / wanted for n, wanted in zip(part(form, upright, upright), form.size, strict=True)]
  scale = (max(scales) if form.fit == "pad" else min(scales)) / _DRAFT_GAP
  if scale >= 2:
    image.draft(None, (math.ceil(image.width / scale), math.ceil(image.height / scale)))


def _channels(image: Image.Image, channels: int) -> np.ndarray:
  """``u8[H, W, channels]``; transparent parts over white where there is no alpha to keep."""
  if channels not in _MODES:
    raise ValueError(f"it has {len(image.getbands())} channels, not {channels}")
  transparent = image.has_transparency_data
  if image.mode not in _MODES.values():
    image = image.convert("RGBA" if transparent else "RGB" if image.mode != "1" else "L")
  if transparent and channels in (1, 3):
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    image = Image.alpha_composite(white, image).convert("RGB")
  pixels = np.asarray(image if image.mode == _MODES[channels] else image.convert(_MODES[channels]))
  return pixels.reshape(*pixels.shape[:2], channels)


def _limits(pixels: np.ndarray) -> tuple[float, float]:
  return float(pixels.min()), float(pixels.max())
