"""Pictures: grids, strips, animations and curves. Needs the ``train`` extra."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

if TYPE_CHECKING:
  from matplotlib.figure import Figure

_PAPER, _INK = 255, 40
_MIN_SIDE = 480
"""Pictures smaller than this many pixels are enlarged by a whole factor, each pixel a square."""
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
"""Endings of files that `save_png` writes."""
SETTINGS = "ddim_jax"
"""Key of the text in a PNG that says how it was made."""
_FIGURES = (".png", ".svg", ".pdf", ".jpg", ".jpeg", ".webp")


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


def save_png(path: Path, picture: np.ndarray) -> None:
  """Writes ``u8[H, W, C]``, enlarged if it is tiny, as PNG or what the ending says; creates the folder.

  Raises:
    ValueError: As `check_name` and `to_image`.
  """
  check_name(path)
  if path.suffix.lower() in (".jpg", ".jpeg", ".bmp"):
    picture = visible(picture)
  path.parent.mkdir(parents=True, exist_ok=True)
  to_image(enlarge(picture)).save(path)


def png_text(settings: dict[str, Any]) -> PngImagePlugin.PngInfo:
  """How a picture was made, for its PNG file."""
  steps = {"S": len(settings["levels"]) - 1} if "levels" in settings else {}
  info = PngImagePlugin.PngInfo()
  info.add_text(SETTINGS, json.dumps(settings | steps))
  return info


def save_animation(path: Path, frames: np.ndarray, seconds: float = 3.0) -> None:
  """Writes ``u8[S, H, W, C]`` as a looping GIF or WebP (by the ending); the last frame stays a second.

  Raises:
    ValueError: If the ending is another.
  """
  check_name(path, (".gif", ".webp"))
  path.parent.mkdir(parents=True, exist_ok=True)
  first, *rest = (to_image(enlarge(frame, 256)) for frame in visible(frames))
  durations = [round(1000 * seconds / len(frames))] * (len(frames) - 1) + [1000]
  options: dict[str, Any] = {"lossless": True} if path.suffix.lower() == ".webp" else {}
  first.save(path, save_all=True, append_images=rest, duration=durations, loop=0, **options)


def table(blocks: Sequence[Sequence[np.ndarray]], rows: Sequence[str], columns: Sequence[str]) -> np.ndarray:
  """A labelled table of pictures.

  Args:
    blocks: ``blocks[row][column]``, each ``u8[H, W, C]``, all of one shape.
    rows: A label for every row.
    columns: A label for every column.

  Returns:
    ``u8[..., 3]``.
  """
  blocks = [[visible(block) for block in row] for row in blocks]
  height, width = blocks[0][0].shape[:2]
  font_size = max(12, height // 12)
  font = ImageFont.load_default(size=font_size)
  margin = int(max(font.getlength(label) for label in rows)) + 16
  line, gap = int(font_size * 1.8), 8
  size = (margin + len(columns) * (width + gap), line + len(rows) * (height + gap))
  page = Image.new("RGB", size, (_PAPER,) * 3)
  draw = ImageDraw.Draw(page)
  for c, label in enumerate(columns):
    x = margin + c * (width + gap) + width // 2
    draw.text((x, line // 2), label, fill=(_INK,) * 3, font=font, anchor="mm")
  for r, label in enumerate(rows):
    top = line + r * (height + gap)
    draw.text((margin - 8, top + height // 2), label, fill=(_INK,) * 3, font=font, anchor="rm")
    for c, block in enumerate(blocks[r]):
      page.paste(to_image(block), (margin + c * (width + gap), top))
  return np.asarray(page)


@contextlib.contextmanager
def figure(path: Path, width: float, height: float, dpi: int = 120) -> Iterator["Figure"]:
  """A matplotlib figure of so many inches to draw in, written to ``path`` at the end; creates the folder.

  Raises:
    ValueError: At once, as `check_name`.
  """
  check_name(path, _FIGURES)
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  drawing = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
  FigureCanvasAgg(drawing)
  yield drawing
  path.parent.mkdir(parents=True, exist_ok=True)
  drawing.savefig(path)


def save_curve(path: Path, steps: np.ndarray, values: np.ndarray, title: str, label: str) -> None:
  """Plots ``values`` against ``steps`` with a running mean, on a logarithmic axis if all are positive."""
  with figure(path, 7, 4) as drawing:
    axes = drawing.add_subplot()
    window = max(1, len(values) // 100)
    smooth = np.convolve(values, np.full(window, 1 / window), mode="valid")
    axes.plot(steps, values, color="#b8cbe0", linewidth=0.6)
    axes.plot(steps[window - 1 :], smooth, color="#1f4e8c", linewidth=1.6, label=f"mean of {window} steps")
    axes.set(title=title, xlabel="step", ylabel=label)
    if np.all(np.asarray(values) > 0):
      axes.set_yscale("log")
    axes.grid(alpha=0.3, which="both")
    axes.legend(frameon=False)


def save_lines(
  path: Path,
  panels: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]],
  xlabel: str,
  ylabel: str,
) -> None:
  """Plots lines on logarithmic axes, side by side.

  Args:
    path: Where to; the folder is created.
    panels: Title -> name of the line -> ``(x, y)``, all positive.
    xlabel: What x is.
    ylabel: What y is.
  """
  with figure(path, 7 * len(panels), 5) as drawing:
    for axes, (title, lines) in zip(
      drawing.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
      for i, (name, (x, y)) in enumerate(lines.items()):
        axes.loglog(
          x, y, marker="osD^v"[i // 10], markersize=4, linewidth=1.3, color=f"C{i % 10}", label=name
        )
      ticks = sorted({value for x, _ in lines.values() for value in x})
      axes.set_xticks(ticks, [f"{value:g}" for value in ticks], minor=False)
      axes.set_xticks([], minor=True)
      axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
      axes.grid(alpha=0.3)
      axes.legend(frameon=False, fontsize=8, ncols=2)


def save_points(
  path: Path,
  x: Sequence[float],
  y: Sequence[float],
  *,
  title: str,
  xlabel: str,
  ylabel: str,
  fit: tuple[float, float] | None = None,
  log: bool = False,
) -> None:
  """Plots points joined by a line, or with the straight line ``(slope, intercept)`` through them.

  Args:
    path: File to write; its folder is created.
    x: Positions.
    y: Values, as many.
    title: Above the plot.
    xlabel: Below it.
    ylabel: Beside it.
    fit: A straight line to draw instead of joining the points.
    log: Values on a logarithmic axis.
  """
  with figure(path, 6, 3.6, dpi=110) as drawing:
    axes = drawing.add_subplot()
    marker = "o" if len(x) <= 50 else ""
    axes.plot(x, y, marker=marker, linestyle="" if fit else "-", color="#1f4e8c")
    if fit:
      ends = np.array([0, max(x)])
      axes.plot(ends, fit[0] * ends + fit[1], color="#c8642d", label=f"{fit[0]:.3g} * x + {fit[1]:.3g}")
      axes.legend(frameon=False)
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    if log and min(y) > 0:
      axes.set_yscale("log")
    axes.grid(alpha=0.3)
