"""Pictures as files, and in them how they were made: the seed, the number of steps, the model.

The settings are JSON: the text "ddim_jax" of a PNG, the comment of a GIF, the EXIF description of the others.
"""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from ddim_jax.atomic import replacing
from ddim_jax.plots.grids import enlarge, to_image, visible

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
"""Endings of files that `save_png` writes."""
SETTINGS = "ddim_jax"
"""Key of the text in a PNG that says how it was made."""
_DESCRIPTION = 0x010E
"""The EXIF tag ImageDescription."""


def check_name(path: str | Path, endings: Sequence[str] = PICTURES) -> None:
  """Whether a file of that name can be written as what its ending says, in any case: call it before the work.

  Raises:
    ValueError: If the ending is none of these, or there is a folder of that name.
  """
  path = Path(path)
  if path.suffix.lower() not in endings:
    raise ValueError(f"the name of a picture must end in {', '.join(endings)}, got {str(path)!r}")
  if path.is_dir():
    raise ValueError(f"{path} is a folder")


def save_png(path: Path, picture: np.ndarray, settings: dict[str, Any] | None = None) -> None:
  """Writes ``u8[H, W, C]``, enlarged if it is tiny, as PNG or what the ending says; creates the folder.

  Args:
    path: The file.
    picture: Its pixels.
    settings: How it was made, JSON values; `read_settings` gives them back. A BMP holds none.

  Raises:
    ValueError: As `check_name` and `to_image`.
  """
  check_name(path)
  if path.suffix.lower() in (".jpg", ".jpeg", ".bmp"):
    picture = visible(picture)
  write(path, to_image(enlarge(picture)), settings)


def save_animation(
  path: Path, frames: np.ndarray, seconds: float = 3.0, settings: dict[str, Any] | None = None
) -> None:
  """Writes ``u8[S, H, W, C]`` as a looping GIF or WebP (by the ending); the last frame stays a second.

  Raises:
    ValueError: If the ending is another.
  """
  check_name(path, (".gif", ".webp"))
  first, *rest = (to_image(enlarge(frame, 256)) for frame in visible(frames))
  durations = [round(1000 * seconds / len(frames))] * (len(frames) - 1) + [1000]
  options: dict[str, Any] = {"lossless": True} if path.suffix.lower() == ".webp" else {}
  write(path, first, settings, save_all=True, append_images=rest, duration=durations, loop=0, **options)


def write(path: Path, image: Image.Image, settings: dict[str, Any] | None = None, **options: Any) -> None:
  """Writes an image of Pillow's as what the ending says, whole or not at all; creates the folder."""
  content = encoded(image, Image.registered_extensions()[path.suffix.lower()], settings, **options)
  with replacing(path) as partial:  # Pillow itself does not notice if only part of a file can be written
    partial.write_bytes(content)


def with_steps(settings: dict[str, Any]) -> dict[str, Any]:
  """How something was made, with the number of steps S beside the levels."""
  return settings | ({"S": len(settings["levels"]) - 1} if "levels" in settings else {})


def encoded(image: Image.Image, kind: str, settings: dict[str, Any] | None = None, **options: Any) -> bytes:
  """An image of Pillow's as the content of a file of a kind such as "PNG", with how it was made."""
  if settings is not None:
    options |= _kept(kind, json.dumps(with_steps(settings)))
  buffer = io.BytesIO()
  image.save(buffer, kind, **options)
  return buffer.getvalue()


def _kept(kind: str, text: str) -> dict[str, Any]:
  """What Pillow is told so that a file of this kind keeps a text."""
  if kind == "PNG":
    info = PngImagePlugin.PngInfo()
    info.add_text(SETTINGS, text)
    return {"pnginfo": info}
  if kind == "GIF":
    return {"comment": text.encode()}
  if kind == "BMP":
    return {}
  exif = Image.Exif()
  exif[_DESCRIPTION] = text
  return {"exif": exif}


def read_settings(path: str | Path) -> dict[str, Any] | None:
  """How a picture of this project was made, or None where it does not say.

  Raises:
    OSError: If it cannot be read.
  """
  with Image.open(path) as image:
    comment = image.info.get("comment", b"")
    texts = (image.info.get(SETTINGS), comment, image.getexif().get(_DESCRIPTION))
  for text in texts:
    try:
      found = json.loads(text or "")
    except ValueError:
      continue
    if isinstance(found, dict):
      return found
  return None
