"""How many rounds sampling takes in parallel: ``python -m experiments.studies.parallel_rounds MODEL``."""

import sys

import jax
import jax.numpy as jnp
import numpy as np

import ddim_jax
from ddim_jax import ranges
from ddim_jax.commands import options
from ddim_jax.models import drawing, tables
from ddim_jax.parallel import sample_parallel
from ddim_jax.ranges import Positive, Unit
from ddim_jax.seeds import key_of

_AXIS = "steps"


def parallel_rounds(
  model: options.Where = options.DEFAULT,
  *,
  steps: tuple[Positive, ...] = (20, 50, 100),
  tolerances: tuple[Unit, ...] = (1e-1, 1e-2, 1e-3),
  window: Positive | None = None,
  eta: Unit = 0.0,
  spacing: tables.SpacingName = "uniform",
  num: Positive = 8,
  seed: int = 0,
) -> None:
  """Prints sequential rounds of the parallel sampler against S, and how far its images are from DDIM's.

  The steps of a window are shared by all local devices.

  Args:
    model: The model.
    steps: Numbers of steps S.
    tolerances: Root mean square changes that count as none, images in [-1, 1].
    window: Steps evaluated at once; by default the whole chain. Rounded up to a multiple of the devices.
    eta: Noise of DDIM, from 0 to 1.
    spacing: Which levels to visit.
    num: How many images.
    seed: Image i of a seed is always the same image.
  """
  ranges.check_all(parallel_rounds, locals())
  if not steps or not tolerances:
    raise ValueError("steps and tolerances must not be empty")
  trained = options.model(model)
  spacings = [trained.levels(S, spacing) for S in steps]
  devices = jax.local_device_count()
  keys, noise = drawing.starts(trained, key_of(seed), np.arange(num))
  labels = drawing.in_turn(trained, jnp.arange(num))

  @jax.jit
  def in_turn(trained, ts):
    denoise = trained.denoiser(label=labels)
    return ddim_jax.sample(keys, denoise, trained.schedule, noise, ts, solver=ddim_jax.ddim(eta))[0]

  print(f"checkpoint of step {trained.step:,}; {num} images; {spacing}; eta {eta:g}; "
        f"{devices} x {jax.devices()[0].platform}")  # fmt: skip
  print(f"{'S':>6}{'window':>8}{'tolerance':>11}{'rounds':>8}{'S / rounds':>12}{'evaluations':>13}"
        f"{'RMS difference':>16}{'largest':>10}")  # fmt: skip
  for ts in spacings:
    S = len(ts) - 1
    wanted = min(window or S, S)
    # A window that the devices can share; the last one may have to be a little narrower than the chain.
    width = min(-(-wanted // devices) * devices, S // devices * devices)
    if not width:
      raise ValueError(f"steps must be at least the number of devices, {devices}, got {S}")

    def at_once(trained, ts, tolerance, _, width=width):
      return sample_parallel(
        keys, trained.denoiser(label=labels), trained.schedule, noise, ts, solver=ddim_jax.ddim(eta),
        window=width, tolerance=tolerance, axis_name=_AXIS,
      )  # fmt: skip

    mapped = jax.pmap(at_once, _AXIS, in_axes=(None, None, None, 0), out_axes=None)
    expected = in_turn(trained, ts)
    for tolerance in tolerances:
      x_0, rounds = mapped(trained, ts, tolerance, np.arange(devices))
      difference = np.asarray(x_0) - np.asarray(expected)
      print(f"{S:>6}{width:>8}{tolerance:>11g}{int(rounds):>8}{S / int(rounds):>12.1f}"
            f"{int(rounds) * width:>13}{np.sqrt(np.mean(difference**2)):>16.1e}"
            f"{np.abs(difference).max():>10.1e}", flush=True)  # fmt: skip


if __name__ == "__main__":
  options.run(parallel_rounds, sys.argv[1:], "parallel_rounds")
