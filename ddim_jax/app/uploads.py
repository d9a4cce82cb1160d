"""Pictures and masks that come from a browser: bounded, read in memory, never written."""

import base64
import binascii
import io

import numpy as np
from PIL import Image

from ddim_jax.data.forms import make_form
from ddim_jax.data.pictures import decode, formats

MOST_BYTES = 8_000_000
MOST_PIXELS = 40_000_000
_TOO_LARGE = "too large: "
_NAME = "the picture"


def picture(address: str, shape: tuple[int, ...]) -> np.ndarray:
  """The picture of a ``data:`` address, cut to its centre and resized.

  Args:
    address: What the browser has read, ``data:image/png;base64,...``; or "too large: N" where it has not read
      a file of so many bytes.
    shape: ``(H, W, C)`` to make it.

  Returns:
    ``u8[H, W, C]``.

  Raises:
    ValueError: If it is too large, or no picture that can be read right; in one sentence.
  """
  height, width, channels = shape
  if address.startswith(_TOO_LARGE):
    raise _too_large(address.removeprefix(_TOO_LARGE))
  head, _, text = address.partition(",")
  if not head.startswith("data:") or not head.endswith(";base64"):
    raise ValueError(f"{_NAME} must be a file, got nothing that can be read")
  if len(text) > MOST_BYTES * 4 // 3 + 4:
    raise _too_large(str(len(text) * 3 // 4))
  try:
    content = base64.b64decode(text, validate=True)
  except binascii.Error as error:
    raise ValueError(f"{_NAME} was damaged on its way") from error
  _check_pixels(content)
  return decode(io.BytesIO(content), make_form((height, width), channels=channels), _NAME)[0]


def _too_large(size: str) -> ValueError:
  shown = f"{int(size) / 1e6:.1f} MB" if size.isdecimal() and len(size) < 16 else "more"
  return ValueError(f"{_NAME} must have at most {MOST_BYTES / 1e6:g} MB, got {shown}")


def _check_pixels(content: bytes) -> None:
  """Looks at the size that the file says, before anything of it is unpacked."""
  try:
    with Image.open(io.BytesIO(content), formats=formats()) as image:
      width, height = image.size
  except Image.DecompressionBombError as error:
    raise ValueError(f"{_NAME} must have at most {MOST_PIXELS / 1e6:g} megapixels, got many more") from error
  except Exception as error:  # Pillow raises a dozen types on damaged files
    raise ValueError(f"{_NAME} cannot be used: it is no picture of a kind that can be read") from error
  if width * height > MOST_PIXELS:
    raise ValueError(
      f"{_NAME} must have at most {MOST_PIXELS / 1e6:g} megapixels, got {width} x {height} pixels"
    )


def mask(text: str, shape: tuple[int, ...]) -> np.ndarray:
  """True where a picture stays, from one character for each pixel, row by row: "1" where it was painted over.

  Args:
    text: ``H * W`` characters, or none at all where nothing was painted.
    shape: ``(H, W, C)`` of the picture.

  Returns:
    ``bool[H, W, 1]``.

  Raises:
    ValueError: If it is something else.
  """
  height, width, _ = shape
  if not text:
    return np.ones((height, width, 1), bool)
  if len(text) != height * width or set(text) - {"0", "1"}:
    raise ValueError(f"mask must be {height * width} characters 0 or 1, got {len(text)}")
  kept: np.ndarray = np.frombuffer(text.encode(), np.uint8) == ord("0")
  return kept.reshape(height, width, 1)
