"""Pictures made of pictures: grids, and tables, with labels."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_PAPER, _INK = 255, 40
_MIN_SIDE = 480
"""Pictures smaller than this many pixels are enlarged by a whole factor, each pixel a square."""
_LEAST_CELL = 72
"""Likewise each picture below or beside a label, so that this fits."""


def visible(images: np.ndarray) -> np.ndarray:
  """Images of any number of channels as grey or colour ones.

  Args:
    images: ``u8[..., H, W, C]``.

  Returns:
    The same for 1 and 3 channels. Of 2 and 4 the last is alpha, and they are shown over white,
    ``u8[..., H, W, 1 or 3]``. Of any other number, the channels stand side by side in grey, ``u8[..., H, C *
    W, 1]``.
  """
  channels = images.shape[-1]
  if channels in (1, 3):
    return images
  if channels in (2, 4):
    alpha = images[..., -1:].astype(np.float32) / 255
    return np.round(images[..., :-1] * alpha + _PAPER * (1 - alpha)).astype(np.uint8)
  return np.concatenate(np.split(images, channels, axis=-1), axis=-2)


def grid(images: np.ndarray, columns: int | None = None, pad: int = 1) -> np.ndarray:
  """Tiles images row by row.

  Args:
    images: ``u8[N, H, W, C]``, shown as `visible` says where C is neither 1 nor 3.
    columns: Images a row; by default as square as it gets.
    pad: White pixels between images.

  Returns:
    ``u8[rows * (H + pad) - pad, columns * (W + pad) - pad, C]``.

  Raises:
    ValueError: If the images are not such an array, or ``columns`` is not positive.
  """
  if images.dtype != np.uint8 or images.ndim != 4 or not images.size:
    raise ValueError(f"images must be a non-empty u8[N, H, W, C], got {images.dtype}{images.shape}")
  if columns is not None and columns < 1:
    raise ValueError(f"columns must be positive, got {columns}")
  images = visible(images)
  number, height, width, channels = images.shape
  columns = columns or int(np.ceil(number**0.5))
  rows = -(-number // columns)
  cells = np.full((rows * columns, height + pad, width + pad, channels), _PAPER, np.uint8)
  cells[:number, :height, :width] = images
  cells = cells.reshape(rows, columns, height + pad, width + pad, channels).transpose(0, 2, 1, 3, 4)
  picture = cells.reshape(rows * (height + pad), columns * (width + pad), channels)
  return picture[: picture.shape[0] - pad, : picture.shape[1] - pad]


def enlarge(picture: np.ndarray, min_side: int = _MIN_SIDE) -> np.ndarray:
  """Nearest-neighbour enlargement by a whole factor until the longer side has ``min_side`` pixels."""
  factor = max(1, -(-min_side // max(picture.shape[:2])))
  return picture.repeat(factor, axis=0).repeat(factor, axis=1)


def to_image(picture: np.ndarray) -> Image.Image:
  """A Pillow image of ``u8[H, W, C]``: grey, grey and alpha, RGB, or RGBA.

  Raises:
    ValueError: If it has other channels, which no file of Pillow's holds.
  """
  if picture.dtype != np.uint8 or picture.ndim != 3 or not 1 <= picture.shape[-1] <= 4:
    raise ValueError(f"a picture must be u8[H, W, 1 to 4], got {picture.dtype}{picture.shape}")
  return Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture)


def labelled(images: np.ndarray, rows: Sequence[str] = (), columns: Sequence[str] = ()) -> np.ndarray:
  """A grid with a label above each column, beside each row, or both; without any, `grid`.

  Args:
    images: ``u8[N, H, W, C]``, row by row; the last row may be shorter. Small ones are enlarged, so that
      labels fit.
    rows: A label for every row, or none.
    columns: A label for every column, or none.

  Returns:
    ``u8[..., 3]`` with labels, else as `grid`.

  Raises:
    ValueError: If there are not as many rows as labels.
  """
  number = len(images)
  if not rows and not columns:
    return grid(images)
  across = len(columns) or -(-number // len(rows))
  down = -(-number // across)
  if rows and len(rows) != down:
    raise ValueError(f"rows must label each of {down} rows of {across} images, got {len(rows)} labels")
  side = max(_LEAST_CELL, _MIN_SIDE // max(across, down))  # so large that none of it is enlarged again
  blocks = [
    [enlarge(image, side) for image in visible(images[first : first + across])]
    for first in range(0, number, across)
  ]
  return table(blocks, rows or [""] * down, columns or [""] * across, gap=2)


def table(
  blocks: Sequence[Sequence[np.ndarray]], rows: Sequence[str], columns: Sequence[str], *, gap: int = 8
) -> np.ndarray:
  """A labelled table of pictures.

  Args:
    blocks: ``blocks[row][column]``, each ``u8[H, W, C]``, all of one shape; the last row may be shorter.
    rows: A label for every row; without any text they take no room.
    columns: A label for every column, cut where it is wider than that; likewise.
    gap: White pixels between blocks.

  Returns:
    ``u8[..., 3]``.
  """
  blocks = [[visible(block) for block in row] for row in blocks]
  height, width = blocks[0][0].shape[:2]
  font_size = max(12, height // 12)
  font = ImageFont.load_default(size=font_size)
  margin = int(max(map(font.getlength, rows))) + 16 if any(rows) else 0
  line = int(font_size * 1.8) if any(columns) else 0
  size = (margin + len(columns) * (width + gap), line + len(rows) * (height + gap))
  page = Image.new("RGB", size, (_PAPER,) * 3)
  draw = ImageDraw.Draw(page)
  for c, label in enumerate(columns):
    x = margin + c * (width + gap) + width // 2
    draw.text((x, line // 2), _cut(label, font, width), fill=(_INK,) * 3, font=font, anchor="mm")
  for r, label in enumerate(rows):
    top = line + r * (height + gap)
    draw.text((margin - 8, top + height // 2), label, fill=(_INK,) * 3, font=font, anchor="rm")
    for c, block in enumerate(blocks[r]):
      page.paste(to_image(block), (margin + c * (width + gap), top))
  return np.asarray(page)


def _cut(label: str, font: Any, width: int) -> str:
  """As much of a label as fits into so many pixels, with dots where some is missing."""
  if font.getlength(label) <= width:
    return label
  while label and font.getlength(f"{label}...") > width:
    label = label[:-1]
  return f"{label}..."
