"""How many rounds sampling takes in parallel: ``python -m experiments.parallel --workdir DIR``."""

import sys
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import ddim_jax
from ddim_jax.models import tables
from ddim_jax.parallel import sample_parallel
from experiments import cli, options

_AXIS = "steps"


@dataclass(frozen=True)
class Args:
  """Prints sequential rounds of the parallel sampler against S, and how far its images are from DDIM's.

  The steps of a window are shared by all local devices.
  """

  workdir: options.Where
  steps: tuple[int, ...] = (20, 50, 100)
  """Numbers of steps S."""
  tolerances: tuple[float, ...] = (1e-1, 1e-2, 1e-3)
  """Root mean square changes that count as none, images in [-1, 1]."""
  window: int | None = None
  """Steps evaluated at once; by default the whole chain. Rounded up to a multiple of the devices."""
  eta: float = 0.0
  """Noise of DDIM, from 0 to 1."""
  spacing: tables.SpacingName = "uniform"
  """Which levels to visit."""
  num: int = 8
  """How many images."""
  seed: int = 0
  """Image i of a seed is always the same image."""


def main(args: Args) -> None:
  """Prints the table."""
  if args.num < 1 or not args.steps or not args.tolerances:
    raise ValueError("--num must be positive, --steps and --tolerances not empty")
  if not 0 <= args.eta <= 1 or min(args.tolerances) < 0 or (args.window is not None and args.window < 1):
    raise ValueError(
      "--eta must be in [0, 1], --tolerances at least 0 and --window positive,"
      f" got {args.eta}, {args.tolerances} and {args.window}"
    )
  trained = options.model(args.workdir)
  spacings = [trained.levels(steps, args.spacing) for steps in args.steps]
  devices = jax.local_device_count()
  keys = ddim_jax.image_keys(jax.random.key(args.seed), np.arange(args.num))
  noise = ddim_jax.initial_noise(keys, (args.num, *trained.shape))
  labels = jnp.arange(args.num) % len(trained.classes) if trained.classes else None

  @jax.jit
  def in_turn(trained, ts):
    denoise = trained.denoiser(label=labels)
    return ddim_jax.sample(keys, denoise, trained.schedule, noise, ts, solver=ddim_jax.ddim(args.eta))[0]

  print(f"checkpoint of step {trained.step:,}; {args.num} images; {args.spacing}; eta {args.eta:g}; "
        f"{devices} x {jax.devices()[0].platform}")  # fmt: skip
  print(f"{'S':>6}{'window':>8}{'tolerance':>11}{'rounds':>8}{'S / rounds':>12}{'evaluations':>13}"
        f"{'RMS difference':>16}{'largest':>10}")  # fmt: skip
  for ts in spacings:
    S = len(ts) - 1
    wanted = min(args.window or S, S)
    # A window that the devices can share; the last one may have to be a little narrower than the chain.
    window = min(-(-wanted // devices) * devices, S // devices * devices)
    if not window:
      raise ValueError(f"--steps must be at least the number of devices, {devices}, got {S}")

    def at_once(trained, ts, tolerance, _, window=window):
      return sample_parallel(
        keys, trained.denoiser(label=labels), trained.schedule, noise, ts, solver=ddim_jax.ddim(args.eta),
        window=window, tolerance=tolerance, axis_name=_AXIS,
      )  # fmt: skip

    mapped = jax.pmap(at_once, _AXIS, in_axes=(None, None, None, 0), out_axes=None)
    expected = in_turn(trained, ts)
    for tolerance in args.tolerances:
      x_0, rounds = mapped(trained, ts, tolerance, np.arange(devices))
      difference = np.asarray(x_0) - np.asarray(expected)
      print(f"{S:>6}{window:>8}{tolerance:>11g}{int(rounds):>8}{S / int(rounds):>12.1f}"
            f"{int(rounds) * window:>13}{np.sqrt(np.mean(difference**2)):>16.1e}"
            f"{np.abs(difference).max():>10.1e}", flush=True)  # fmt: skip


if __name__ == "__main__":
  arguments = tyro.cli(Args, args=sys.argv[1:], prog="experiments.parallel")
  cli.run(partial(main, arguments))
