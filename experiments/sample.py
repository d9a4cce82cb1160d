"""Draws images from a trained model: ``python -m experiments.sample --workdir DIR``."""

import dataclasses
import functools
import sys
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import ddim_jax
from ddim_jax import checkpoints, data, metrics, plots
from ddim_jax.models import Model, datasets, drawing, packaged, tables
from experiments import cli, editing, options, outputs, roundtrip

_LARGEST_GRID = 1024
PACKAGED, WITH_CLASSES = map(Path, packaged())


@dataclass(frozen=True)
class Args:
  """Draws images from the newest checkpoint of a run, or from the models that come with the package: clothes,
  with --class and --guidance of the kind asked for."""

  workdir: options.Where = PACKAGED
  step: int | None = None
  """Checkpoint of a run to use; the newest by default."""
  ema: float | None = None
  """Decay of the average to use, of those the run has kept; the main one by default. Of a .ckpt file, 0
  takes the model's own weights."""
  size: int | None = None
  """Height of the images in pixels, where another project's files do not say, or other than they say."""
  data: str | None = None
  """Where real images are needed and the model's files do not say: cifar10, fashion_mnist or digits."""
  num: int = 64
  """How many images; of trajectories and of pairs to interpolate, at most the first 8 are drawn."""
  out: Path | None = None
  """A .png file for a grid, a .npz file, or a folder for numbered PNG files; WORKDIR/sample.png by
  default (here, if WORKDIR is a file). A folder or .npz that was interrupted is completed."""
  steps: int = 50
  """Number of sampling steps S, from 1 to T."""
  spacing: tables.SpacingName | None = None
  """Which levels to visit; uniform by default, or what another project's files say. Quadratic is the
  paper's choice for CIFAR-10, log-snr suits the solvers of higher order, karras is EDM's."""
  solver: tables.SolverName = "ddim"
  """ddpm is ddim with eta 1; ddpm-large is the paper's sigma-hat; the others, of higher order, need fewer
  steps: see python -m experiments.solvers. dpmpp-2s and heun ask the network twice a step."""
  eta: float = 0.0
  """Noise of --solver ddim, from 0 (deterministic) to 1 (as DDPM)."""
  clip: bool = True
  """Clip predicted images to [-1, 1], or as another project's files say; the paper's eta rows do not."""
  seed: int = 0
  """Image i of a seed is always the same image."""
  batch_size: int = 64
  """Images at a time on each device."""
  label: Annotated[int | None, tyro.conf.arg(aliases=["--class"])] = None
  """Class to draw, for a conditional model; by default image i is of class i modulo their number."""
  guidance: float | None = None
  """Weight of classifier-free guidance, for a conditional model; 1 is none."""
  trajectory: bool = False
  """Draw how images emerge: a strip (.png) and animations (.gif, .webp)."""
  interpolate: bool = False
  """Draw great-circle interpolations between noises, a row a pair."""
  reconstruct: bool = False
  """Encode real images, decode them, and print the error."""
  refine: int = 0
  """Fixed-point iterations a step when encoding."""
  edit: editing.Edit = field(default_factory=editing.Edit)


def _check(args: Args, trained: Model) -> None:
  """Raises ValueError on options that do not go with each other or with the model."""
  if args.num < 1 or args.batch_size < 1:
    raise ValueError(f"--num and --batch-size must be positive, got {args.num} and {args.batch_size}")
  if not 0 <= args.eta <= 1:
    raise ValueError(f"--eta must be in [0, 1], got {args.eta}")
  if args.eta and args.solver != "ddim":
    raise ValueError(f"--eta goes with --solver ddim, got --eta {args.eta:g} with --solver {args.solver}")
  if sum((args.trajectory, args.interpolate, args.reconstruct, args.edit.asked_for)) > 1:
    raise ValueError(
      "--trajectory, --interpolate, --reconstruct and (--inpaint, --strength) exclude each other"
    )
  args.edit.check()
  fixed = (args.eta != 0, args.solver != "ddim", args.label is not None, args.guidance is not None)
  if args.reconstruct and any(fixed):
    raise ValueError("--reconstruct is deterministic: leave out --eta, --solver, --label and --guidance")
  special = args.trajectory or args.interpolate or args.reconstruct or args.edit.asked_for
  if special and args.out is not None and args.out.suffix != ".png":
    raise ValueError(f"--out must end in .png here, got {args.out}")
  if args.refine < 0:
    raise ValueError(f"--refine must be at least 0, got {args.refine}")
  for name, value in (("--label", args.label), ("--guidance", args.guidance)):
    if value is not None and not trained.classes:
      raise ValueError(f"{name} needs a conditional model; {args.workdir} holds an unconditional one")
  if args.label is not None and not 0 <= args.label < len(trained.classes):
    raise ValueError(f"--label must be in [0, {len(trained.classes) - 1}], got {args.label}")


def draw_images(args: Args, trained: Model, ts: np.ndarray) -> None:
  """A grid, a folder or an npz of samples."""
  at_once = min(args.batch_size * jax.local_device_count(), args.num)
  size, draw = drawing.numbered_pictures(
      trained, ts, solver=args.solver, seed=args.seed, label=args.label,
      guidance=args.guidance, clip=args.clip, at_once=at_once,
  )  # fmt: skip
  draw = functools.partial(draw, eta=args.eta)
  out = args.out or options.results_folder(args.workdir) / "sample.png"
  if out.suffix == ".png":
    if args.num > _LARGEST_GRID:
      raise ValueError(f"a grid holds at most {_LARGEST_GRID} images: give --out FOLDER or FILE.npz")
    blocks = [draw(np.arange(i, i + size)) for i in range(0, args.num, size)]
    a_column_each = args.label is None and 0 < len(trained.classes) < args.num
    columns = len(trained.classes) if a_column_each else None
    plots.save_png(out, plots.grid(np.concatenate(blocks)[: args.num], columns))
  else:
    weights = checkpoints.flatten(trained.params).values()
    settings = {
        "step": trained.step, "weights_crc32": zlib.crc32(b"".join(w.tobytes() for w in weights)),
        "levels": ts.tolist(), "solver": args.solver, "eta": args.eta, "clip": args.clip,
        "seed": args.seed, "label": args.label, "guidance": args.guidance,
    }  # fmt: skip
    if out.suffix == ".npz":
      outputs.write_npz(out, args.num, size, draw, settings, trained.shape)
    else:
      outputs.write_pngs(out, args.num, size, draw, settings)
  print(f"wrote {args.num} images to {out}")


def _labels(args: Args, trained: Model, num: int):
  if not trained.classes:
    return None
  return jnp.arange(num) % len(trained.classes) if args.label is None else jnp.full(num, args.label)


def draw_trajectory(args: Args, trained: Model, ts: np.ndarray) -> None:
  """How a few images emerge: samples above, predictions of the final image below."""
  num = min(args.num, 8)
  keys = ddim_jax.image_keys(jax.random.key(args.seed), np.arange(num))
  noise = ddim_jax.initial_noise(keys, (num, *trained.shape))
  observe = lambda step: (step.x_s, step.prediction.x0)

  @jax.jit
  def run(trained, eta, guidance, ts):
    denoise = trained.denoiser(label=_labels(args, trained, num), guidance=guidance, clip=args.clip)
    solver = drawing.as_solver(args.solver, eta)
    return ddim_jax.sample(keys, denoise, trained.schedule, noise, ts, solver=solver, observe=observe)[1]

  seen = run(trained, args.eta, args.guidance, ts)
  samples, predictions = (data.to_uint8(x) for x in seen)
  shown = np.unique(np.linspace(0, len(ts) - 2, 12).round().astype(int))
  rows = [moments[shown, i] for i in range(num) for moments in (samples, predictions)]
  out = args.out or options.results_folder(args.workdir) / "trajectory.png"
  plots.save_png(out, plots.grid(np.concatenate(rows), columns=len(shown)))
  frames = np.stack([plots.grid(frame, columns=num) for frame in samples])
  for suffix in (".gif", ".webp"):
    plots.save_animation(out.with_suffix(suffix), frames)
  print(f"wrote {out} (each image: the sample, and below it the prediction), and .gif and .webp beside it")


def draw_interpolation(args: Args, trained: Model, ts: np.ndarray, columns: int = 11) -> None:
  """The paper's figure 6: a row for every pair of noises."""
  rows = min(args.num, 8)
  keys = ddim_jax.image_keys(jax.random.key(args.seed), np.arange(2 * rows))
  noise = ddim_jax.initial_noise(keys, (2 * rows, *trained.shape))
  weights = jnp.linspace(0, 1, columns)
  labels = _labels(args, trained, rows)

  @jax.jit
  def run(trained, eta, guidance, ts):
    tiled = None if labels is None else jnp.tile(labels, columns)
    denoise = trained.denoiser(label=tiled, guidance=guidance, clip=args.clip)
    solver = drawing.as_solver(args.solver, eta)
    return ddim_jax.interpolate(
      keys[:rows], denoise, trained.schedule, noise[:rows], noise[rows:], ts, weights, solver=solver
    )

  images = data.to_uint8(run(trained, args.eta, args.guidance, ts))
  out = args.out or options.results_folder(args.workdir) / "interpolation.png"
  plots.save_png(out, plots.grid(images.swapaxes(0, 1).reshape(-1, *trained.shape), columns=columns))
  print(f"wrote {out}: {rows} pairs, {columns} weights from 0 to 1")


def draw_reconstruction(args: Args, trained: Model, ts: np.ndarray) -> None:
  """Real images encoded and decoded: originals above, reconstructions below."""
  source = datasets.test_data(trained)
  num = min(args.num, source.size)
  way, found = roundtrip.through_noise(trained), []
  for start in range(0, num, args.batch_size):
    images, labels = source.read(np.arange(start, start + args.batch_size) % source.size)
    found.append(way(images, labels, ts, args.refine))
  real, _, made = (np.concatenate(arrays)[:num] for arrays in zip(*found, strict=True))
  error = metrics.reconstruction_error(real, made).value
  columns = min(num, 16)
  pairs = data.to_uint8(np.concatenate([real[:columns], made[:columns]]))
  out = args.out or options.results_folder(args.workdir) / "reconstruction.png"
  plots.save_png(out, plots.grid(pairs, columns=columns))
  print(
    f"mean squared error per dimension, images in [0, 1]: {error:.3g} over {num} images of {source.name}"
    f" (S = {len(ts) - 1}, refine {args.refine}); wrote {out}"
  )


def main(args: Args) -> None:
  """Loads the model and does what was asked for."""
  trained = options.model(args.workdir, args.step, args.ema, args.size, args.data)
  _check(args, trained)
  ts = trained.levels(args.steps, args.spacing)
  what = f"checkpoint of step {trained.step:,}" if trained.step else "imported network"
  print(f"{what}; {len(ts) - 1} steps over levels {' '.join(f'{t:g}' for t in ts)}")
  began = time.monotonic()
  if args.trajectory:
    draw_trajectory(args, trained, ts)
  elif args.interpolate:
    draw_interpolation(args, trained, ts)
  elif args.reconstruct:
    draw_reconstruction(args, trained, ts)
  elif args.edit.asked_for:
    editing.draw(
        args.edit, trained, ts, drawing.as_solver(args.solver, args.eta), num=args.num, seed=args.seed,
        label=args.label, guidance=args.guidance, clip=args.clip,
        out=args.out or options.results_folder(args.workdir) / "edit.png",
    )  # fmt: skip
  else:
    draw_images(args, trained, ts)
  print(f"{time.monotonic() - began:.1f} s, compilation included")


def parse(argv: Sequence[str]) -> Args:
  """The command line as `Args`; of the two models that come along, the one that fits what is asked for."""
  args = tyro.cli(Args, args=argv, prog="experiments.sample", config=(tyro.conf.OmitArgPrefixes,))
  conditional = args.label is not None or args.guidance is not None
  if conditional and args.workdir is PACKAGED:  # the default, not the same path typed
    return dataclasses.replace(args, workdir=WITH_CLASSES)
  return args


if __name__ == "__main__":
  arguments = parse(sys.argv[1:])
  cli.run(lambda: main(arguments))
