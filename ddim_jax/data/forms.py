"""Forms: what a picture of any size becomes, cut and resized to arrays of one shape."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

Size = int | Sequence[int]
"""A side of a square, or ``(height, width)``."""
Fit = Literal["crop", "pad"]
_DTYPES = ("uint8", "uint16", "float32")
_REDUCING_GAP = 3.0


def in_words(size: Sequence[int]) -> str:
  """Height and width as they are said and typed everywhere: ``64x96`` is 64 high and 96 wide."""
  return f"{size[0]}x{size[1]}"


class Form(NamedTuple):
  """What is made of every picture, by `make_form`.

  Attributes:
    size: ``(height, width)`` in pixels, or None as each picture is.
    crop: ``(height, width)`` of a central rectangle cut out first, in pixels, or None.
    fit: "crop" cuts the largest central part of the shape asked for, "pad" keeps all and fills up with black.
    channels: How many.
    dtype: "uint8", "uint16" or "float32".
    values: For uint8, the numbers that become 0 and 255 in pictures with more than 8 bits; for other types,
      lowest and highest number, of which the lowest fills up.
  """

  size: tuple[int, int] | None
  crop: tuple[int, int] | None
  fit: Fit
  channels: int
  dtype: str
  values: tuple[float, float] | None


def make_form(
  size: Size | None = None,
  crop: Size | None = None,
  *,
  fit: Fit = "crop",
  channels: int = 3,
  dtype: str = "uint8",
  values: tuple[float, float] | None = None,
) -> Form:
  """A form, checked.

  Raises:
    ValueError: If an argument is out of its range; names it.
  """
  if fit not in ("crop", "pad"):
    raise ValueError(f"fit must be 'crop' or 'pad', got {fit!r}")
  if channels < 1:
    raise ValueError(f"channels must be positive, got {channels}")
  if dtype not in _DTYPES:
    raise ValueError(f"dtype must be one of {_DTYPES}, got {dtype!r}")
  if values is not None and not (len(values) == 2 and -np.inf < values[0] < values[1] < np.inf):
    raise ValueError(f"values must be two rising finite numbers, got {values}")
  return Form(_pair("image_size", size), _pair("crop", crop), fit, channels, dtype, values)


def _pair(name: str, size: Size | None) -> tuple[int, int] | None:
  if size is None:
    return None
  pair = (size, size) if isinstance(size, int | np.integer) else tuple(size)
  if len(pair) != 2 or not all(isinstance(n, int | np.integer) and n >= 1 for n in pair):
    raise ValueError(f"{name} must be a positive integer or a pair (height, width) of them, got {size}")
  return int(pair[0]), int(pair[1])


def converted(pixels: np.ndarray, form: Form) -> np.ndarray:
  """Pixels ``[H, W, C]`` of any type in the type and with the channels of a form.

  Raises:
    ValueError: If that would lose or invent something: says what.
  """
  found = pixels.shape[2]
  if pixels.dtype.kind == "f" and not np.all(np.isfinite(pixels)):
    raise ValueError("it holds NaN or infinity")
  pixels = {"uint8": _to_bytes, "uint16": _to_sixteen_bits, "float32": _to_floats}[form.dtype](pixels, form)
  if found == form.channels:
    return pixels
  if found != 1 or form.channels > 4 or (form.dtype == "float32" and form.channels != 3):
    raise ValueError(f"it has {found} channels, not {form.channels}")
  colours = pixels.repeat(1 if form.channels == 2 else 3, axis=2)
  if form.channels == 3:
    return colours
  return np.concatenate([colours, np.full_like(pixels, np.iinfo(pixels.dtype).max)], axis=2)


def _to_bytes(pixels: np.ndarray, form: Form) -> np.ndarray:
  if pixels.dtype == np.uint8:
    return pixels
  values = form.values or ((0, 65535) if pixels.dtype == np.uint16 else None)
  low, high = pixels.min(), pixels.max()
  if values is None:
    raise ValueError(f"its values lie from {low:g} to {high:g}: say what is black and white with values=")
  if low < values[0] or high > values[1]:
    raise ValueError(f"its values lie from {low:g} to {high:g}, beyond values={values}")
  return np.round((pixels - np.float64(values[0])) * (255 / (values[1] - values[0]))).astype(np.uint8)


def _to_sixteen_bits(pixels: np.ndarray, form: Form) -> np.ndarray:
  if pixels.dtype == np.uint8:
    return pixels.astype(np.uint16) * np.uint16(257)
  if pixels.dtype != np.uint16:
    raise ValueError(f"it is {pixels.dtype}, which uint16 cannot hold: use float32")
  return pixels


def _to_floats(pixels: np.ndarray, form: Form) -> np.ndarray:
  if pixels.dtype == np.uint8:
    raise ValueError("it has 8 bits, among pictures whose numbers are kept as float32")
  return pixels.astype(np.float32)


def part(form: Form, size: tuple[int, int], whole: tuple[int, int]) -> tuple[int, int]:
  """Height and width of the central part of a picture that its form shows, before resizing.

  Args:
    form: With its crop in pixels of the whole picture.
    size: ``(height, width)`` of the picture as decoded.
    whole: ``(height, width)`` of the whole picture, which may have been decoded smaller.

  Raises:
    ValueError: If the picture is smaller than the crop.
  """
  height, width = size
  if form.crop is not None:
    if form.crop[0] > whole[0] or form.crop[1] > whole[1]:
      cut = in_words(form.crop)
      raise ValueError(f"crop of {cut} pixels (height x width) from an image of {in_words(whole)}")
    height = max(1, round(form.crop[0] * height / whole[0]))
    width = max(1, round(form.crop[1] * width / whole[1]))
  if form.size is not None and form.fit == "crop":
    scale = min(height / form.size[0], width / form.size[1])
    height, width = (max(1, round(n * scale)) for n in form.size)
  return height, width


def resize(pixels: np.ndarray, form: Form, whole: tuple[int, int] | None = None) -> np.ndarray:
  """Cuts and resizes ``[H, W, C]`` to its form, with Pillow's bicubic filter.

  Bytes are resized as bytes (with alpha, colours are weighted by it). Other numbers are resized as float32,
  kept within the range of the picture, which the filter overshoots at edges, and rounded if they are
  integers.

  Args:
    pixels: Of one of the types of forms.
    form: What to make of it.
    whole: As of `part`; by default the picture was decoded in full.

  Raises:
    ValueError: If the picture is smaller than the crop.
  """
  size = (pixels.shape[0], pixels.shape[1])
  height, width = part(form, size, whole or size)
  top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
  pixels = pixels[top : top + height, left : left + width]
  if form.size is None or form.size == (height, width):
    return np.ascontiguousarray(pixels)
  if form.fit == "crop":
    return _resample(pixels, form.size)
  scale = min(form.size[0] / height, form.size[1] / width)
  inner = (max(1, round(height * scale)), max(1, round(width * scale)))
  top, left = (form.size[0] - inner[0]) // 2, (form.size[1] - inner[1]) // 2
  black = 0 if form.values is None or form.dtype == "uint8" else form.values[0]
  padded = np.full((*form.size, pixels.shape[2]), black, pixels.dtype)
  padded[top : top + inner[0], left : left + inner[1]] = _resample(pixels, inner)
  return padded


def _resample(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  scaled = lambda image: np.asarray(
    image.resize(size[::-1], Image.Resampling.BICUBIC, reducing_gap=_REDUCING_GAP)
  )
  channels = pixels.shape[2]
  if pixels.dtype == np.uint8 and channels <= 4:
    flat = np.ascontiguousarray(pixels[..., 0] if channels == 1 else pixels)
    return scaled(Image.fromarray(flat)).reshape(*size, channels)
  planes = [
    scaled(Image.fromarray(np.ascontiguousarray(plane, np.float32))) for plane in np.moveaxis(pixels, 2, 0)
  ]
  result = np.clip(np.stack(planes, axis=2), pixels.min(), pixels.max())
  found: np.ndarray = (result if pixels.dtype.kind == "f" else np.round(result)).astype(pixels.dtype)
  return found
