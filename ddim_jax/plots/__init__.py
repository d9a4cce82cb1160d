"""Pictures for people: grids, tables, animations and curves. Needs the ``train`` extra."""

from ddim_jax.plots.curves import figure, save_curve, save_lines, save_points
from ddim_jax.plots.grids import enlarge, grid, labelled, table, to_image, visible
from ddim_jax.plots.image_files import (
  PICTURES,
  SETTINGS,
  check_name,
  encoded,
  read_settings,
  save_animation,
  save_png,
  with_steps,
  write,
)

__all__ = [
  "PICTURES",
  "SETTINGS",
  "check_name",
  "encoded",
  "enlarge",
  "figure",
  "grid",
  "labelled",
  "read_settings",
  "save_animation",
  "save_curve",
  "save_lines",
  "save_png",
  "save_points",
  "table",
  "to_image",
  "visible",
  "with_steps",
  "write",
]
