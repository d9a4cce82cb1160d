"""Pictures made from pictures: inpainting and image to image, as modes of ``experiments.sample``."""

from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import ddim_jax
from ddim_jax import data, plots, timesteps
from ddim_jax.models import Model, datasets

_COLUMNS = 16


@dataclass(frozen=True)
class Edit:
  """Options of the modes that start from pictures."""

  inpaint: Path | None = None
  """A mask, a picture of the model's size: white is painted anew, black is kept."""
  strength: float | None = None
  """Image to image: share of the steps to take, in (0, 1], starting from the picture with noise."""
  image: Path | None = None
  """The picture to start from, of the model's size, drawn --num times; by default --num pictures of the
  data set."""
  resample: int = 5
  """With --inpaint: how often each stretch of steps is walked, so that the new part fits the old."""
  jump: int = 5
  """With --inpaint: steps in a stretch."""

  @property
  def asked_for(self) -> bool:
    """Whether this is what to draw."""
    return self.inpaint is not None or self.strength is not None

  def check(self) -> None:
    """Raises ValueError on options that do not go with each other."""
    if self.image is not None and not self.asked_for:
      raise ValueError("--image is for --inpaint and --strength: give one of them, or both")
    if self.resample < 1 or self.jump < 1:
      raise ValueError(f"--resample and --jump must be positive, got {self.resample} and {self.jump}")

  def levels(self, ts: np.ndarray) -> np.ndarray:
    """The levels to walk: cut at the strength, with stretches repeated when inpainting."""
    ts = ts if self.strength is None else timesteps.cut(ts, self.strength)
    return ts if self.inpaint is None else timesteps.repaint(ts, self.jump, self.resample)


def draw(
  edit: Edit,
  trained: Model,
  ts: np.ndarray,
  solver: ddim_jax.Solver,
  *,
  num: int,
  seed: int,
  label: int | None,
  guidance: float | None,
  clip: bool,
  out: Path,
) -> None:
  """Writes a grid: originals, with a mask what was kept of them, and the results below.

  Args:
    edit: What to do.
    trained: From `ddim_jax.load`.
    ts: Levels of the whole chain.
    solver: For the steps down.
    num: How many results; at most 16 are drawn.
    seed: Decides the noise, with the number of the result.
    label: Class of all results; None takes that of each picture of the data set, or the number of the
      result modulo the number of classes with ``edit.image``.
    guidance: Weight of classifier-free guidance, or None.
    clip: Clip predicted images to [-1, 1].
    out: Where to write, a .png file.
  """
  num, levels = min(num, _COLUMNS), edit.levels(ts)
  height, width, channels = trained.shape
  size = (height, width)
  if edit.image is None:
    originals, labels = datasets.real_images(trained, num)
  else:
    originals = np.repeat(data.read_picture(edit.image, channels=channels, size=size)[None], num, axis=0)
    labels = np.arange(num, dtype=np.int32)
  labels = labels % max(len(trained.classes), 1) if label is None else np.full_like(labels, label)
  kept = None if edit.inpaint is None else data.read_mask(edit.inpaint, size)[None]
  solver = solver if kept is None else ddim_jax.repaint(solver)
  keys = ddim_jax.image_keys(jax.random.key(seed), np.arange(len(originals)))
  noise = ddim_jax.initial_noise(keys, originals.shape)

  @jax.jit
  def run(trained, levels, known, labels, guidance):
    labels = labels if trained.classes else None
    denoise = trained.denoiser(label=labels, guidance=guidance, clip=clip)
    if kept is not None:
      denoise = ddim_jax.inpaint(denoise, kept, known, trained.schedule)
    start = noise if edit.strength is None else ddim_jax.add_noise(trained.schedule, known, noise, levels[0])
    return ddim_jax.sample(keys, denoise, trained.schedule, start, levels, solver=solver)[0]

  known = data.from_uint8(originals)
  results = run(trained, jnp.asarray(levels), known, labels, guidance)
  rows = [originals, data.to_uint8(results)]
  if kept is not None:
    rows.insert(1, np.where(kept, originals, np.uint8(128)))
  plots.save_png(out, plots.grid(np.concatenate(rows), columns=len(originals)))
  print(f"wrote {out}: {len(rows)} rows, originals first and results last; {len(levels) - 1} steps")
