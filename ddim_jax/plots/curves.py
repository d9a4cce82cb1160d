"""Curves, lines and points, by matplotlib."""

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ddim_jax.atomic import replacing
from ddim_jax.plots.image_files import check_name

if TYPE_CHECKING:
  from matplotlib.figure import Figure

_FIGURES = (".png", ".svg", ".pdf", ".jpg", ".jpeg", ".webp")


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
  buffer = io.BytesIO()
  drawing.savefig(buffer, format=path.suffix[1:].lower())
  with replacing(path) as partial:
    partial.write_bytes(buffer.getvalue())


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
