"""How well real images survive encoding and decoding: ``python -m experiments.inversion --workdir DIR``."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import ddim_jax
from ddim_jax import bijective, plots
from experiments import build, cli, origins, sampler

_CLOSE = 1e-5
"""Root mean square in data units: a little above rounding."""


@dataclass(frozen=True)
class Args:
  """Prints and draws the mean squared round-trip error against the number of steps S and refinements k."""

  workdir: origins.Where
  steps: tuple[int, ...] = (10, 20, 50, 100)
  """Numbers of steps S."""
  refine: tuple[int, ...] = (0, 1, 2, 5, 10)
  """Numbers of fixed-point iterations a step, k."""
  damping: float = 1.0
  """Damping of the fixed point, in (0, 1]; 1 is undamped."""
  spacing: build.Spacing = "uniform"
  """Which levels to visit."""
  num: int = 64
  """How many images, from the test split where there is one."""
  batch_size: int = 64
  """Images at a time."""
  out: Path | None = None
  """The picture; WORKDIR/inversion.png by default."""
  size: int | None = None
  """Height of the images in pixels, where another project's files do not say."""
  data: str | None = None
  """What to compare with, where the model's files do not say: cifar10, fashion_mnist or digits."""


RoundTrip = Callable[..., tuple[jax.Array, jax.Array]]
"""``(denoise, schedule, x0, ts, refine, damping) -> (x_T, x0 again)``."""


def refined(denoise, schedule, x0, ts, refine, damping):
  """Fixed-point inversion and DDIM."""
  x_T = ddim_jax.invert(denoise, schedule, x0, ts, refine=refine, damping=damping)
  return x_T, ddim_jax.sample(jax.random.key(0), denoise, schedule, x_T, ts)[0]


def exact(weight: bijective.Weight) -> RoundTrip:
  """A bijective sampler, both ways."""

  def there_and_back(denoise, schedule, x0, ts, refine, damping):
    pair = bijective.encode(denoise, schedule, x0, ts, weight=weight)
    return pair.x_T, bijective.decode(denoise, schedule, pair, ts, weight=weight)

  return there_and_back


def measurement(trained: sampler.Trained, images, labels, size: int, way: RoundTrip):
  """A function ``(ts, refine, damping) -> (error, rms)``, compiled once for every S.

  The error is the mean squared one of images in [0, 1], as in the paper's table 2; rms is the root mean
  square of x_T.
  """

  @jax.jit
  def run(params, schedule, x0, labels, ts, refine, damping):
    denoise = sampler.denoiser(trained, params, schedule, labels if trained.classes else None)
    x_T, back = way(denoise, schedule, x0, ts, refine, damping)
    return jnp.mean((back - x0) ** 2, axis=(1, 2, 3)) / 4, jnp.mean(x_T**2, axis=(1, 2, 3))

  def measure(ts: np.ndarray, refine: int, damping: float) -> tuple[float, float]:
    found = []
    for i in range(0, len(images), size):
      x0 = sampler.on_devices(images[i : i + size])
      arguments = (x0, labels[i : i + size], ts, refine, damping)
      found.append(run(trained.params, trained.schedule, *arguments))
    errors, squares = (np.concatenate(values) for values in zip(*found, strict=True))
    return float(errors.mean()), float(squares.mean() ** 0.5)

  return measure


def contraction(trained: sampler.Trained, ts: np.ndarray, images, labels, iterations: int = 5):
  """How the fixed point of every step converges by itself, from real images with noise.

  Returns:
    ``(missed, rate)``, each ``f32[S]``, the noisiest first: by how much a step misses after so many
    iterations, root mean square, and the mean factor of each of as many more.
  """

  @jax.jit
  def run(params, schedule, ts, x0, labels):
    denoise = sampler.denoiser(trained, params, schedule, labels if trained.classes else None)

    def at(levels):
      t, s = levels
      x_s = ddim_jax.add_noise(schedule, x0, jax.random.normal(jax.random.key(1), x0.shape), s)

      def miss(refine):
        x_t = ddim_jax.invert(denoise, schedule, x_s, levels, refine=refine)
        landed = ddim_jax.ddim_step(schedule, denoise(x_t, t), t, s)
        return jnp.sqrt(jnp.mean((landed - x_s) ** 2))

      misses = jax.lax.map(miss, jnp.array([iterations, 2 * iterations]))
      return misses[0], (misses[1] / misses[0]) ** (1 / iterations)

    return jax.lax.map(at, jnp.stack([ts[:-1], ts[1:]], axis=1))

  found = run(
    trained.params, trained.schedule, jnp.asarray(ts), sampler.on_devices(images), jnp.asarray(labels)
  )
  return tuple(map(np.asarray, found))


def draw(path: Path, steps, lines: dict[str, list[float]]) -> None:
  """Error against S, a line for every way, both axes logarithmic."""
  with plots.figure(path, 7, 4.5) as figure:
    axes = figure.add_subplot()
    for name, errors in lines.items():
      axes.plot(steps, errors, marker="o", markersize=4, label=name)
    axes.set(xscale="log", yscale="log", xlabel="steps S", ylabel="mean squared error, images in [0, 1]")
    axes.set_xticks(steps, [str(s) for s in steps])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)


def main(args: Args) -> None:
  """Prints the table, line by line, and draws it."""
  if args.num < 1 or args.batch_size < 1 or not args.steps or not args.refine:
    raise ValueError("--num and --batch-size must be positive, --steps and --refine not empty")
  if min(args.refine) < 0 or not 0 < args.damping <= 1:
    raise ValueError(
      f"--refine must be at least 0 and --damping in (0, 1], got {args.refine} and {args.damping}"
    )
  trained = sampler.load(args.workdir, size=args.size, data_set=args.data)
  spacings = [build.timesteps(args.spacing, trained.schedule, steps) for steps in args.steps]
  images, labels = sampler.real_images(trained, args.num)
  fixed_point, bdia, belm = (
    measurement(trained, images, labels, args.batch_size, way)
    for way in (refined, exact(bijective.bdia()), exact(bijective.belm))
  )
  ways = {f"k = {k}": (fixed_point, k) for k in args.refine}
  ways |= {"bijective, bdia": (bdia, 0), "bijective, belm": (belm, 0)}

  print(
    f"checkpoint of step {trained.step:,}; {len(images)} images; {args.spacing}; damping {args.damping:g}"
  )
  print("mean squared error of the round trip, images in [0, 1] (root mean square of x_T)")
  print(f"{'':18}" + "".join(f"{f'S = {len(ts) - 1}':>20}" for ts in spacings))
  lines: dict[str, list[float]] = {}
  for name, (measure, refine) in ways.items():
    found = [measure(ts, refine, args.damping) for ts in spacings]
    lines[name] = [error for error, _ in found]
    print(f"{name:18}" + "".join(f"{f'{e:.2e} ({rms:.2f})':>20}" for e, rms in found), flush=True)
  out = args.out or sampler.results_folder(args.workdir) / "inversion.png"
  draw(out, [len(ts) - 1 for ts in spacings], lines)

  print(f"steps that still miss by more than {_CLOSE:g} after 5 undamped iterations, and by what factor each")
  print("of 5 more shrinks that: below 1 converges, near 1 slowly")
  few = min(args.num, 16)
  for ts in spacings:
    missed, rate = contraction(trained, ts, images[:few], labels[:few])
    slow = np.flatnonzero(missed > _CLOSE)
    shown = ", ".join(f"{ts[i]} to {ts[i + 1]}: {rate[i]:.2f}" for i in slow[np.argsort(-rate[slow])][:5])
    print(f"S = {len(ts) - 1:<4} {len(slow)} of {len(ts) - 1}; slowest {shown or 'none'}", flush=True)
  print(f"curve: {out}")


if __name__ == "__main__":
  arguments = tyro.cli(Args, args=sys.argv[1:], prog="experiments.inversion")
  cli.run(partial(main, arguments))
