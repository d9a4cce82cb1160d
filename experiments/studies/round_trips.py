"""How well real images survive encoding and decoding: ``python -m experiments.studies.round_trips MODEL``."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import ddim_jax
from ddim_jax import bijective, inversion, metrics, plots, ranges
from ddim_jax.commands import options, outputs
from ddim_jax.models import Model, datasets, drawing, roundtrip, tables
from ddim_jax.ranges import Count, Positive, Share


def measurement(images, labels, size: int, way):
  """A function ``(ts, refine, damping) -> (error, rms)``.

  The error is the mean squared one of images in [0, 1], as in the paper's table 2; rms is the root mean
  square of x_T. ``way`` is what `roundtrip.through_noise` returns, asked for ``size`` images at a time.
  """

  def measure(ts: np.ndarray, refine: int, damping: float) -> tuple[float, float]:
    found = []
    for i in range(0, len(images), size):
      part = slice(i, i + size)
      found.append(way(images[part], labels[part], ts, refine, damping))
    x0, x_T, back = (np.concatenate(arrays) for arrays in zip(*found, strict=True))
    return metrics.reconstruction_error(x0, back).value, float(np.mean(x_T**2) ** 0.5)

  return measure


def iterations(trained: Model, ts: np.ndarray, images, labels, refine: int, damping: float):
  """How many refinements each step takes until every image lands where it should, ``i32[S]``.

  The first is the step into clean data, where encoding begins.
  """

  @jax.jit
  def run(trained, x0, labels, ts):
    denoise = trained.denoiser(label=labels if trained.classes else None, clip=False)
    tolerance = inversion.rounding(x0)

    def step(x_s, levels):
      t, s = levels
      return inversion.step_up(
        denoise, trained.schedule, ddim_jax.ddim(), x_s, s, t, refine, damping, tolerance
      )

    return jax.lax.scan(step, x0, (ts[-2::-1], ts[:0:-1]))[1]

  return np.asarray(run(trained, drawing.on_devices(images), labels, jnp.asarray(ts)))


def round_trips(
  model: options.Where = options.DEFAULT,
  *,
  steps: tuple[Positive, ...] = (10, 20, 50, 100),
  refine: tuple[Count, ...] = (0, 1, 5, 10, 100),
  damping: Share = 1.0,
  spacing: tables.SpacingName = "uniform",
  num: Positive = 64,
  batch_size: Positive = 64,
  out: Path | None = None,
  image_size: options.Size = None,
  data: str | None = None,
) -> None:
  """Prints and draws the mean squared round-trip error against the number of steps S and refinements k.

  Args:
    model: The model.
    steps: Numbers of steps S.
    refine: Largest numbers of refinements a step, k; a step that is exact to rounding before takes no more.
    damping: Damping of the fixed point, in (0, 1]; 1 is undamped.
    spacing: Which levels to visit.
    num: How many images, from the test split where there is one.
    batch_size: Images at a time.
    out: The picture; by default inversion.png in the folder of the run, or here.
    image_size: Height of the images in pixels, where another project's files do not say.
    data: What to compare with, where the model's files do not say: cifar10, fashion_mnist or digits.
  """
  ranges.check_all(round_trips, locals())
  if not steps or not refine:
    raise ValueError("steps and refine must not be empty")
  place = outputs.place(out, model, "inversion.png")
  trained = options.model(model, size=image_size, data=data)
  spacings = [trained.levels(S, spacing) for S in steps]
  images, labels = datasets.real_images(trained, num)
  fixed_point, bdia, belm = (
    measurement(images, labels, batch_size, roundtrip.through_noise(trained, way))
    for way in (roundtrip.refined, roundtrip.exact(bijective.bdia()), roundtrip.exact(bijective.belm))
  )
  ways = {f"k = {k}": (fixed_point, k) for k in refine}
  ways |= {"bijective, bdia": (bdia, 0), "bijective, belm": (belm, 0)}

  print(f"checkpoint of step {trained.step:,}; {len(images)} images; {spacing}; damping {damping:g}")
  print("mean squared error of the round trip, images in [0, 1] (root mean square of x_T)")
  print(f"{'':18}" + "".join(f"{f'S = {len(ts) - 1}':>20}" for ts in spacings))
  lines: dict[str, tuple[list[int], list[float]]] = {}
  for name, (measure, k) in ways.items():
    found = [measure(ts, k, damping) for ts in spacings]
    lines[name] = [len(ts) - 1 for ts in spacings], [error for error, _ in found]
    print(f"{name:18}" + "".join(f"{f'{e:.2e} ({rms:.2f})':>20}" for e, rms in found), flush=True)
  plots.save_lines(place, {"": lines}, "steps S", "mean squared error, images in [0, 1]")

  few, most = min(num, batch_size), max(refine)
  print(f"refinements that the steps take, of at most {most}, until {few} images land where they should")
  for ts in spacings:
    counts = iterations(trained, ts, images[:few], labels[:few], most, damping)
    longest = ", ".join(f"{ts[-2 - i]} to {ts[-1 - i]}: {counts[i]}" for i in np.argsort(-counts)[:4])
    print(f"S = {len(ts) - 1:<4} {counts.mean():.1f} a step; most for {longest}", flush=True)
  print(f"curve: {place}")


if __name__ == "__main__":
  options.run(round_trips, sys.argv[1:], "round_trips")
