"""``ddim sample``: draws images of a trained model."""

import dataclasses
import json
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ddim_jax import checkpoints, plots, ranges
from ddim_jax.commands import cli, editing, options, outputs, sequences
from ddim_jax.console import say
from ddim_jax.data import tiff
from ddim_jax.models import Model, build, denoising, drawing, tables
from ddim_jax.models.classes import as_columns
from ddim_jax.ranges import Count, Positive, Rate, Real, Seed, Unit

_LARGEST_GRID = 1024


@dataclass(frozen=True)
class Args:
  """Draws images of a trained model, by default of the one that comes along: pictures of clothes.

  ddim sample

  ddim sample --class Sneaker --guidance 3

  ddim sample runs/mine --num 50000 --out images

  ddim sample runs/mine --steps 20 --solver unipc2 --spacing log-snr

  ddim sample runs/mine --inpaint mask.png --image shoe.png

  ddim sample runs/mine --reconstruct --refine 100

  Attributes:
    step: Checkpoint of a run to use; the newest by default.
    ema: Decay of the EMA to use, of those the run has kept; the main one by default. Of a .ckpt file, 0 takes
      the model's own weights.
    image_size: See `options.Size`.
    flags: See `options.Flags`.
    data: Where real images are needed and the model's files do not say: cifar10, fashion_mnist or digits.
    num: How many images; of trajectories and of pairs to interpolate at most 8 are drawn, at most 16 of
      edits.
    out: A .png file for a grid to look at; or, in the type and the range of the data set, a .npz file or a
      folder for numbered files: PNG for bytes, TIFF for all else. By default sample.png in the folder of the
      run, or here. A folder or .npz that was interrupted is completed.
    steps: Number of sampling steps S, from 1 to T; by default 50, or what the model was distilled for.
    spacing: Which levels to visit; uniform by default, or what another project's files say. Quadratic is the
      paper's choice for CIFAR-10, log-snr suits the solvers of higher order, karras is EDM's.
    solver: By default ddim, or what another project's files say. ddpm is ddim with eta 1; ddpm-large is the
      paper's sigma-hat; the others, of higher order, need fewer steps. dpmpp-2s, dpmpp-sde and heun ask the
      network twice per step.
    eta: Noise of --solver ddim, from 0 (deterministic) to 1 (as DDPM).
    clip: Clip predicted images to [-1, 1], or as another project's files say; the paper's eta rows do not.
    seed: Image i of a seed is always the same image.
    batch_size: Images at a time on each device.
    label: Class to draw, by number or name, for a conditional model; by default image i is of class i modulo
      the number of classes.
    condition: Numbers to condition on, of a model that was trained with such; by default none.
    guidance: Weight of classifier-free guidance, for a conditional model: 1 is the model itself, 0 draws
      without a class, more is stronger. Any weight but 1 asks the network twice.
    trajectory: Draw how images emerge: a strip (.png) and animations (.gif, .webp).
    interpolate: Draw great-circle interpolations between noises, a row a pair.
    reconstruct: Encode real images, decode them, and print the error.
    refine: Fixed-point iterations per step when encoding.
  """

  model: options.Where = options.DEFAULT
  step: Count | None = None
  ema: Rate | None = None
  image_size: options.Size = None
  flags: options.Flags = None
  data: str | None = None
  num: Positive = 64
  out: Path | None = None
  steps: Positive | None = None
  spacing: tables.SpacingName | None = None
  solver: tables.SolverName | None = None
  eta: Unit = 0.0
  clip: bool = True
  seed: Seed = 0
  batch_size: Positive = 64
  label: options.Label = None
  condition: tuple[Real, ...] = ()
  guidance: Real | None = None
  trajectory: bool = False
  interpolate: bool = False
  reconstruct: bool = False
  refine: Count = 0
  edit: editing.Edit = field(default_factory=editing.Edit)

  @property
  def special(self) -> str | None:
    """What is drawn instead of plain images."""
    modes = {"trajectory": self.trajectory, "interpolation": self.interpolate}
    modes |= {"reconstruction": self.reconstruct, "edit": self.edit.asked_for}
    return next((name for name, wanted in modes.items() if wanted), None)

  def check(self) -> None:
    """Raises ValueError on options that are out of range or do not go with each other."""
    ranges.check_all(self)
    ranges.check_all(self.edit)
    tables.checked_eta(self.eta, self.solver or "ddim")
    if sum((self.trajectory, self.interpolate, self.reconstruct, self.edit.asked_for)) > 1:
      raise ValueError(
        "--trajectory, --interpolate, --reconstruct and (--inpaint, --strength, --edit-to) exclude each other"
      )
    self.edit.check()
    other = self.solver not in (None, "ddim")
    if self.edit.edit_to is not None and other:
      raise ValueError(f"--edit-to goes with --solver ddim, whose noise it records, got {self.solver}")
    fixed = (self.eta != 0, other, self.label is not None, self.guidance is not None)
    if self.reconstruct and any((*fixed, self.condition)):
      raise ValueError(
        "--reconstruct is deterministic: leave out --eta, --solver, --label, --condition and --guidance"
      )

  def target(self) -> Path:
    """Where the result goes."""
    if self.special is not None:
      return outputs.place(self.out, self.model, f"{self.special}.png")
    out = outputs.place(self.out, self.model, "sample.png", (".png", ".npz", ""))
    if out.suffix.lower() == ".png" and self.num > _LARGEST_GRID:
      raise ValueError(f"a grid holds at most {_LARGEST_GRID} images: give --out FOLDER or FILE.npz")
    return out

  def settings(self, trained: Model, ts: np.ndarray) -> dict[str, Any]:
    """What decides the images: kept beside them, and in every PNG."""
    weights = checkpoints.flatten(trained.params).values()
    config = build.to_json(trained.config)
    decides = [*map(config.get, ("model", "diffusion", "imported")), trained.shape, trained.scaling]
    return {
      "model": self.model, "step": trained.step,
      "weights_crc32": zlib.crc32(b"".join(np.asarray(w).tobytes() for w in weights)),
      "model_crc32": zlib.crc32(json.dumps(decides).encode()),
      "levels": ts.tolist(), "solver": tables.name_of(self.solver or trained.solver), "eta": self.eta,
      "clip": self.clip, "seed": self.seed, "label": self.label, "guidance": self.guidance,
      **({"condition": list(self.condition)} if self.condition else {}),
    }  # fmt: skip


def draw_images(args: Args, trained: Model, ts: np.ndarray, out: Path) -> None:
  """A grid, a folder or an npz of samples."""
  suffix = out.suffix.lower()
  numbered = drawing.numbered_pictures if suffix == ".png" else drawing.numbered_values
  if suffix != ".npz" and len(trained.shape) != 3:
    raise ValueError(f"samples of shape {trained.shape} are no pictures: give --out FILE.npz")
  size, draw = numbered(
      trained, ts, solver=args.solver, seed=args.seed, label=trained.labels(args.label),
      condition=args.condition or None,
      guidance=1.0 if args.guidance is None else args.guidance, clip=args.clip,
      at_once=min(args.batch_size * jax.local_device_count(), args.num),
  )  # fmt: skip
  drawn = lambda indices: draw(indices, args.eta)
  settings = args.settings(trained, ts)
  if suffix == ".png":
    blocks = [drawn(np.arange(i, i + size)) for i in range(0, args.num, size)]
    names = as_columns(trained.classes, args.num) if args.label is None else ()
    plots.save_png(out, plots.labelled(np.concatenate(blocks)[: args.num], columns=names), settings)
  elif suffix == ".npz":
    outputs.write_npz(out, args.num, size, drawn, settings, trained.shape, trained.scaling.dtype)
  else:
    as_png = trained.scaling.dtype == "uint8" and trained.shape[-1] <= 4
    if not as_png:
      tiff.check_writable(trained.shape[-1], trained.scaling.dtype)
    outputs.write_files(out, args.num, size, drawn, settings, ".png" if as_png else ".tif")
  say(f"wrote {args.num} images to {out}")


def sample(args: Args) -> None:
  """Loads the model and does what was asked for."""
  args.check()
  out = args.target()
  trained = options.model(args.model, args.step, args.ema, args.image_size, args.data, args.flags)
  ts = trained.levels(args.steps or trained.own_steps, args.spacing)
  solver = args.solver or trained.solver
  tables.checked_eta(args.eta, solver)
  what = f"model of step {trained.step:,}" if trained.step else "model of another project"
  levels = " ".join(f"{t:g}" for t in ts)
  say(f"{what}; {len(ts) - 1} steps of {tables.name_of(solver)} over levels {levels}")
  began, settings = time.monotonic(), args.settings(trained, ts)
  how = sequences.How(
    trained, ts, solver, args.eta, trained.labels(args.label),
    args.guidance if denoising.is_guided(args.guidance) else None, args.clip, args.seed,
    args.condition or None,
  )  # fmt: skip
  match args.special:
    case "trajectory":
      sequences.draw_trajectory(how, args.num, out, settings)
    case "interpolation":
      sequences.draw_interpolation(how, args.num, out, settings)
    case "reconstruction":
      sequences.draw_reconstruction(trained, ts, args.num, args.refine, args.batch_size, out, settings)
    case "edit":
      editing.draw(args.edit, how, args.num, out, settings)
    case _:
      draw_images(args, trained, ts, out)
  say(f"{time.monotonic() - began:.1f} s, compilation included")


def parse(argv: Sequence[str]) -> Args:
  """The command line as `Args`; of the two models that come along, the one that fits what is asked for."""
  args = options.parse(Args, argv, "ddim sample")
  conditional = any(one is not None for one in (args.label, args.guidance, args.edit.edit_to))
  named = any(not word.startswith("-") and word == args.model for word in argv)
  if conditional and args.model == options.DEFAULT and not named:
    return dataclasses.replace(args, model=options.CONDITIONAL)
  return args


def main(argv: Sequence[str]) -> None:
  """Parses, draws and exits."""
  args = parse(argv)
  cli.run(lambda: sample(args), options=options.names(Args, editing.Edit))
