"""Pictures as HTML that carries them itself: nothing is written to disk to show them."""

import base64
import html
from collections.abc import Sequence
from typing import Any

import numpy as np

from ddim_jax import plots
from ddim_jax.app.tasks import Row, Shown

_LARGE = 160
"""Pictures are sent with at least so many pixels a side, so that a browser does not blur them."""


def address(picture: np.ndarray, settings: dict[str, Any] | None = None) -> str:
  """``u8[H, W, C]`` as the ``data:`` address of a PNG, with its settings in it if there are any."""
  content = plots.encoded(plots.to_image(picture), "PNG", settings, compress_level=1)
  return "data:image/png;base64," + base64.b64encode(content).decode()


def _figure(image: np.ndarray, title: str, caption: str) -> str:
  text = html.escape(caption)
  below = f"<figcaption>{text}</figcaption>" if caption else ""
  return f'<figure><img alt="{html.escape(title)} {text}" src="{address(image)}">{below}</figure>'


def _row(row: Row) -> str:
  captions = row.captions or ("",) * len(row.images)
  figures = "".join(
    _figure(image, row.title, caption)
    for image, caption in zip(plots.visible(row.images), captions, strict=True)
  )
  few = " ddim-few" if len(row.images) == 1 else ""
  title = f"<h3>{html.escape(row.title)}</h3>"
  return f'<section class="ddim-section">{title}<div class="ddim-row{few}">{figures}</div></section>'


def progress(done: int, total: int) -> str:
  """A bar, and in words how far it is."""
  said = f"step {done} of {total}" if done < total else f"{total} steps, done"
  return (
    f'<p class="ddim-progress" role="status"><progress max="{total}" value="{done}"></progress>{said}</p>'
  )


def rows(shown: Shown) -> str:
  """The pictures of what is shown."""
  return "".join(map(_row, shown.rows))


def sentence(text: str) -> str:
  """A sentence in place of pictures."""
  return f'<p class="ddim-sentence" role="alert">{html.escape(text)}</p>'


def waiting(text: str) -> str:
  """What is said until the first step."""
  return f'<p class="ddim-progress" role="status"><progress></progress>{html.escape(text)}</p>'


def labelled(shown: Sequence[Row]) -> np.ndarray:
  """All rows as one picture with their titles, ``u8[H, W, 3]``."""
  most = max(len(row.images) for row in shown)
  blocks = []
  for row in shown:
    images = plots.visible(row.images)
    filled = np.full((most, *images.shape[1:]), 255, np.uint8)
    filled[: len(images)] = images
    blocks.append([plots.enlarge(plots.grid(filled, columns=most), 480)])
  return plots.table(blocks, [row.title for row in shown], [""])


def download(shown: Shown, settings: dict[str, Any]) -> str:
  """A link to all that is shown as one PNG, which says how it was made."""
  picture = address(labelled(shown.rows), settings)
  return (
    f'<a class="ddim-download" download="ddim.png" href="{picture}">Download as PNG, with its settings</a>'
  )
