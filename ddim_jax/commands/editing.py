"""Pictures made from pictures: inpainting and image to image, as modes of ``ddim sample``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import ddim_jax
from ddim_jax import plots, timesteps
from ddim_jax.commands.sequences import How
from ddim_jax.console import say
from ddim_jax.data.forms import make_form
from ddim_jax.data.pictures import as_mask, decode
from ddim_jax.models import Model, classes, datasets, denoising, drawing, tables
from ddim_jax.places import local
from ddim_jax.ranges import Positive, Share

_COLUMNS = 16


@dataclass(frozen=True)
class Edit:
  """Options of the modes that start from pictures.

  Attributes:
    inpaint: A mask, a picture: white is painted anew, black is kept.
    strength: Image to image: share of the steps to take, in (0, 1], starting from the picture with noise; or
      of --edit-to, where less keeps more of the picture.
    edit_to: Make the picture one of this class, by number or name, and keep what the class leaves alone: the
      noise behind it is recorded (eta 1 unless you say less) and followed again. --class says what --image
      shows; pictures of the data set have their own class.
    image: The picture to start from, drawn --num times, at most 16; by default --num pictures of the data
      set. Of a picture or mask of another size than the model's images, the largest central part is taken and
      resized.
    resample: With --inpaint: how often each stretch of steps is walked, so that the new part fits the old.
    jump: With --inpaint: steps in a stretch.
  """

  inpaint: Path | None = None
  strength: Share | None = None
  edit_to: str | None = None
  image: Path | None = None
  resample: Positive = 5
  jump: Positive = 5

  @property
  def asked_for(self) -> bool:
    """Whether this is what to draw."""
    return any(one is not None for one in (self.inpaint, self.strength, self.edit_to))

  def check(self) -> None:
    """Raises ValueError on options that do not go with each other."""
    if self.image is not None and not self.asked_for:
      raise ValueError("--image is for --inpaint, --strength and --edit-to: give one of them")
    if self.edit_to is not None and self.inpaint is not None:
      raise ValueError("--edit-to and --inpaint exclude each other")

  def levels(self, ts: np.ndarray) -> np.ndarray:
    """The levels to walk: cut at the strength, with stretches repeated when inpainting."""
    ts = ts if self.strength is None else timesteps.cut(ts, self.strength)
    return ts if self.inpaint is None else timesteps.repaint(ts, self.jump, self.resample)


def _fitted(path: Path, name: str, size: tuple[int, int], channels: int, dtype: str = "uint8") -> np.ndarray:
  """A picture of the model's size, ``dtype[H, W, channels]``; says what was done to one of another size."""
  pixels, held = decode(local(path, name), make_form(size, channels=channels, dtype=dtype))
  if (held.height, held.width) != size:
    what = f"the largest central part of {held.width}x{held.height} pixels, resized to {size[1]}x{size[0]}"
    say(f"{path}: {what}")
  return pixels


def _target(edit: Edit, how: How) -> Any:
  """The class that pictures are to become, ``i32[]``.

  Raises:
    ValueError: If the model has no such class, or it is not known what the picture shows.
  """
  if edit.image is not None and how.label is None:
    raise ValueError("--edit-to needs --class with --image: the class that the picture shows")
  return classes.numbers(edit.edit_to, how.model.classes, "edit_to")


def _as_another(how: How, keys: jax.Array, known: jax.Array, levels: Any, labels: Any, target: Any) -> Any:
  """Data as another class would have them, by the noise of the stochastic process, see
  `ddim_jax.noise_maps`."""
  eta = how.eta or 1.0

  @jax.jit
  def run(model: Model, levels: Any, known: Any, labels: Any, guidance: Any) -> jax.Array:
    of = lambda label: model.denoiser(label=label, condition=how.condition, guidance=guidance, clip=how.clip)
    maps = ddim_jax.encode_noises(keys, of(labels), model.schedule, known, levels, eta=eta)
    changed = jnp.full_like(labels, target)
    return ddim_jax.decode_noises(of(changed), model.schedule, maps, levels, eta=eta)

  return run(how.model, levels, known, labels, how.guidance)


def draw(edit: Edit, how: How, num: int, out: Path, settings: dict[str, Any]) -> None:
  """Writes a grid: originals, with a mask what was kept of them, and the results below.

  Args:
    edit: What to do.
    how: How to draw, over the levels of the whole chain. Without a label, a result has the class of its
      picture of the data set, or with ``edit.image`` its own number modulo that of the classes.
    num: How many results; at most 16 are drawn.
    out: Where to write, a .png file.
    settings: What is kept in it.
  """
  num, levels, model = min(num, _COLUMNS), edit.levels(how.ts), how.model
  target = None if edit.edit_to is None else _target(edit, how)
  height, width, channels = model.shape
  size = (height, width)
  if edit.image is None:
    originals, labels = datasets.real_images(model, num)
  else:
    originals = np.repeat(
      _fitted(edit.image, "image", size, channels, model.scaling.dtype)[None], num, axis=0
    )
    labels = np.arange(num, dtype=np.int32)
  labels = labels % max(len(model.classes), 1) if how.label is None else np.full_like(labels, how.label)
  kept = (
    None if edit.inpaint is None else as_mask(_fitted(edit.inpaint, "inpaint", size, 1), edit.inpaint)[None]
  )
  keys, noise = how.noise(len(originals))

  @jax.jit
  def run(model: Model, levels: Any, known: Any, labels: Any, guidance: Any) -> jax.Array:
    label = labels if model.classes else None
    denoise, variance = denoising.pair(model, label, how.condition, guidance, how.clip)
    solver = tables.as_solver(how.solver, how.eta, variance)
    if kept is not None:
      solver = ddim_jax.repaint(solver)
      denoise = ddim_jax.inpaint(denoise, kept, known, model.schedule)
    start = noise if edit.strength is None else ddim_jax.add_noise(model.schedule, known, noise, levels[0])
    return ddim_jax.sample(keys, denoise, model.schedule, start, levels, solver=solver)[0]

  known = model.scaling.to_data(originals)
  if target is not None:
    results = _as_another(how, keys, known, jnp.asarray(levels), labels, target)
  else:
    results = run(model, jnp.asarray(levels), known, labels, how.guidance)
  originals = model.pictures(np.asarray(known))
  painted = {} if kept is None else {"kept": np.where(kept, originals, np.uint8(128))}
  result = "result" if target is None else f"as {model.classes[target]}"
  rows = {"original": originals} | painted | {result: model.pictures(drawing.finite(results))}
  above = [model.classes[number] for number in labels] if model.classes else ()
  plots.save_png(out, plots.labelled(np.concatenate(list(rows.values())), list(rows), above), settings)
  say(f"wrote {out}: rows {', '.join(rows)}; {len(levels) - 1} steps")
