"""Errors of all solvers by network evaluations (NFE): ``python -m experiments.studies.solver_errors``."""

import contextlib
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import ddim_jax
from ddim_jax import plots, timesteps
from ddim_jax.commands import options
from ddim_jax.models import Model, drawing, tables
from ddim_jax.schedules import coefficients
from ddim_jax.seeds import key_of


def _paid_for(solver: str, evaluations: int) -> int:
  """Steps that so many network evaluations pay for, down to level 0; 0 if not a single one."""
  with contextlib.suppress(ValueError):
    return tables.steps_for(solver, evaluations)
  return 0


_DETERMINISTIC = (
  "ddim", "dpmpp-2m", "dpmpp-3m", "dpmpp-2s", "unipc2", "unipc3", "deis2", "deis3", "heun", "plms", "pndm",
)  # fmt: skip
"""The stochastic solvers have no place here: their samples are not meant to come near that solution."""
STEPS: dict[str, Callable[[int], int]] = {name: partial(_paid_for, name) for name in _DETERMINISTIC}
"""Steps by solver and number of evaluations."""
_EXACT = 1000  # steps of the reference
_MODES, _STD = 8, 0.15

Draw = Callable[[str, np.ndarray], np.ndarray]
"""``(solver, ts) -> samples``, from the same noise every time; compiled once for each solver."""
Errors = dict[str, dict[int, float]]
"""Solver -> evaluations -> error."""


def mixture_denoiser(schedule: ddim_jax.Schedule) -> ddim_jax.Denoiser:
  """The exact denoiser of eight normal distributions on a circle of radius 1, for ``[B, 2]``."""
  angles = 2 * np.pi * np.arange(_MODES) / _MODES
  centres = np.stack([np.cos(angles), np.sin(angles)], axis=-1)[None]

  def denoise(x, t):
    alpha, sigma = (c[..., None] for c in coefficients(schedule, t, x))
    variance = (alpha * _STD) ** 2 + sigma**2
    apart = x[:, None] - alpha * centres
    likely = jax.nn.softmax(-jnp.sum(apart**2, axis=-1, keepdims=True) / (2 * variance), axis=1)
    x0 = jnp.sum(likely * (centres + alpha * _STD**2 / variance * apart), axis=1)
    return ddim_jax.Prediction(x0, (x - alpha[..., 0] * x0) / sigma[..., 0])

  return denoise


def _padded(longest: int, run: Callable) -> Draw:
  """``run(solver, ts, count)``, jitted once for each solver whatever the number of steps."""
  compiled: dict[str, Callable] = {}

  def draw(name, ts):
    if name not in compiled:
      solver = tables.as_solver(name, 0.0)
      compiled[name] = jax.jit(lambda ts, count: run(solver, ts, count))
    padded, count = timesteps.pad(ts, max(longest, len(ts) - 1))
    return np.asarray(compiled[name](padded, count), np.float64)

  return draw


def on_mixture(num: int, seed: int, longest: int) -> tuple[ddim_jax.Schedule, Draw]:
  """Samples of the mixture under the linear schedule, in the precision that JAX is set to."""
  schedule, key = ddim_jax.linear_schedule(), jax.random.key(seed)
  denoise = mixture_denoiser(schedule)
  x_T = ddim_jax.initial_noise(key, (num, 2), dtype=schedule.log_snr.dtype)

  def run(solver, ts, count):
    return ddim_jax.sample(key, denoise, schedule, x_T, ts, solver=solver, count=count)[0]

  return schedule, _padded(longest, run)


def on_model(trained: Model, num: int, seed: int, longest: int) -> tuple[ddim_jax.Schedule, Draw]:
  """Samples of a trained model, unclipped; image i of class i modulo their number."""
  keys, x_T = drawing.starts(trained, key_of(seed), np.arange(num))
  x_T = jax.device_put(x_T, drawing.by_example(num))
  denoise = trained.denoiser(label=drawing.in_turn(trained, jnp.arange(num)), clip=False)

  def run(solver, ts, count):
    return ddim_jax.sample(keys, denoise, trained.schedule, x_T, ts, solver=solver, count=count)[0]

  return trained.schedule, _padded(longest, run)


def table(title: str, errors: Errors, evaluations: tuple[int, ...]) -> str:
  """Errors as a Markdown table, the smallest of every column in bold."""
  best = {n: min(row[n] for row in errors.values() if n in row) for n in evaluations}

  def cell(row, n):
    if n not in row:
      return ""
    return f"**{row[n]:.1e}**" if row[n] == best[n] else f"{row[n]:.1e}"

  lines = [f"## {title}", "", "| evaluations | " + " | ".join(map(str, evaluations)) + " |"]
  lines.append("|---" * (len(evaluations) + 1) + "|")
  lines += [
    f"| {name} | " + " | ".join(cell(row, n) for n in evaluations) + " |" for name, row in errors.items()
  ]
  return "\n".join(lines)


def verdict(errors: Errors) -> str:
  """Whether the best solver at 10 evaluations is closer to the exact solution than DDIM at 50."""
  if not all(n in errors["ddim"] for n in (10, 50)):
    return ""
  best = min(errors, key=lambda name: errors[name].get(10, np.inf))
  few, many = errors[best][10], errors["ddim"][50]
  return (
    f"Best at 10 evaluations: {best}, {few:.2e}. DDIM at 50: {many:.2e}, {many / few:.2g} times that:"
    f" the best solver at 10 is {'closer to' if few < many else 'farther from'} the exact solution."
  )


def solver_errors(
  model: str | None = None,
  *,
  out: Path = Path("solvers"),
  evaluations: tuple[int, ...] = (5, 6, 8, 10, 15, 20, 30, 50, 100),
  spacing: tables.SpacingName = "log-snr",
  num: int = 256,
  images: int = 16,
  seed: int = 0,
) -> None:
  """Measures the error of every deterministic solver against the number of network evaluations.

  The error is the root mean square difference from the exact solution of the same deterministic process
  from the same noise, per dimension, the median over the samples. On a mixture of normal distributions,
  whose denoiser is known exactly (in float64), and with --model on a trained model. The exact solution is
  that of 1,000 steps of UniPC-3 (mixture) or of DPM-Solver++(2M) (model). Writes solvers.png, solvers.json
  and solvers.md.

  Args:
    model: A model to measure on too.
    out: Folder for the results; created.
    evaluations: Numbers of network evaluations. A solver that asks twice a step takes half as many steps.
    spacing: Which levels to visit. The exact solution starts at level T: spacings that start below it
      (uniform, leading, quadratic) carry that as an error.
    num: How many samples of the mixture.
    images: How many samples of the model.
    seed: Decides the noise to start from.
  """
  if not evaluations or min(evaluations) < 1 or num < 1 or images < 1:
    raise ValueError("evaluations, num and images must be positive, and evaluations not empty")
  trained = None if model is None else options.model(model)
  results: dict[str, Errors] = {}
  longest = max(evaluations)

  def collect(title: str, schedule: ddim_jax.Schedule, draw: Draw, reference: str) -> None:
    exact = draw(reference, timesteps.log_snr(schedule, min(_EXACT, schedule.T)))
    errors: Errors = {name: {} for name in STEPS}
    levels, axes = tables.spacing(spacing, schedule), tuple(range(1, exact.ndim))
    for name, n in ((name, n) for name in STEPS for n in evaluations):
      if 1 <= (steps := STEPS[name](n)) <= schedule.T:  # else it cannot be paid for
        squares = np.mean((draw(name, levels(steps)) - exact) ** 2, axis=axes)
        errors[name][n] = float(np.median(np.sqrt(squares)))
        print(f"{title}: {name}, {n} evaluations: {errors[name][n]:.1e}", flush=True)
    results[title] = {name: row for name, row in errors.items() if row}

  with jax.enable_x64(True):
    collect("mixture", *on_mixture(num, seed, longest), "unipc3")
  if model is not None and trained is not None:
    title = f"model {Path(model).name}, step {trained.step}"
    collect(title, *on_model(trained, images, seed, longest), "dpmpp-2m")

  head = (
    "Root mean square difference of a sample from the exact solution, the median over the samples: the few"
    " that lie between two ends, of which each solver may take another, do not count."
    f" Levels: {spacing}."
  )
  parts = ["# Error against network evaluations", head]
  for title, errors in results.items():
    parts += [table(title, errors, evaluations), verdict(errors)]
  text = "\n\n".join(part for part in parts if part) + "\n"
  out.mkdir(parents=True, exist_ok=True)
  (out / "solvers.md").write_text(text)
  settings = {"spacing": spacing, "num": num, "images": images, "seed": seed}
  (out / "solvers.json").write_text(json.dumps({"settings": settings, "errors": results}, indent=1) + "\n")
  panels = {
    title: {name: (list(row), list(row.values())) for name, row in errors.items()}
    for title, errors in results.items()
  }
  plots.save_lines(out / "solvers.png", panels, "network evaluations", "error")
  print(text)
  print(f"wrote {out}/solvers.png, solvers.json and solvers.md")


if __name__ == "__main__":
  options.run(solver_errors, sys.argv[1:], "solver_errors")
