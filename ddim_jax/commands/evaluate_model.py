"""``ddim evaluate``: how far samples are from the data, for several S and solvers, as a table and a chart."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ddim_jax import plots
from ddim_jax.commands import options, outputs
from ddim_jax.console import say
from ddim_jax.models import datasets, tables
from ddim_jax.ranges import Count, Positive, Rate, Real, Seed, Several, Unit
from ddim_jax.runs import quality

_STEPS = (10, 20, 50)
Rows = dict[str, dict[str, dict[str, Any]]]
"""What was drawn -> S -> measures."""


def evaluate(
  model: options.Where = options.DEFAULT,
  *,
  steps: tuple[Positive, ...] | None = None,
  solvers: tuple[tables.SolverName, ...] | None = None,
  spacing: tables.SpacingName | None = None,
  eta: Unit = 0.0,
  guidance: Real = 1.0,
  num: Several = 5000,
  seed: Seed = 0,
  batch_size: Positive = 128,
  step: Count | None = None,
  ema: Rate | None = None,
  data: str | None = None,
  image_size: options.Size = None,
  flags: options.Flags = None,
  inception: Path | None = None,
  name: str | None = None,
  out: options.MaybeOut = None,
) -> None:
  """Measures how far samples are from the data that the model was trained on: Frechet distance and others.

  ddim evaluate runs/mine --steps 10 20 50 --solvers ddim unipc2

  ddim evaluate runs/distil/4_steps --out few.json, then the teacher with the same --out: one table

  Args:
    model: The model.
    steps: Numbers of sampling steps S; by default 10, 20 and 50, or what the model was distilled for.
    solvers: Solvers; by default ddim, or what another project's files say. dpmpp-2s, dpmpp-sde and heun ask
      the network twice per step.
    spacing: Which levels to visit; uniform by default, or what the model's files say.
    eta: Noise of the solver ddim, from 0 (deterministic) to 1 (as DDPM).
    guidance: Weight of classifier-free guidance, for a conditional model; 1 is the model itself.
    num: Images to draw; distances of different numbers cannot be compared. Image i is of class i modulo the
      number of classes.
    seed: Image i of a seed is always the same image.
    batch_size: Images at a time on each device.
    step: Checkpoint of a run to use; the newest by default.
    ema: Decay of the EMA to use, of those the run has kept; the main one by default.
    data: The data set, where the model's files do not say: cifar10, fashion_mnist or digits.
    image_size: See `options.Size`.
    flags: See `options.Flags`.
    inception: Weights of the FID's Inception network; without, EfficientNet-Lite0, or for grey images a
      classifier.
    name: What the rows of the table are called; the model by default.
    out: The measures, a .json file, with a chart beside it; by default evaluation.json in the folder of the
      run, or here. What it already holds of the same data, judge, --num and --seed stays and is not
      measured again.
  """
  place = outputs.place(out, model, "evaluation.json", (".json",))
  found = options.model(model, step=step, ema=ema, data=data, size=image_size, flags=flags)
  options.check_pictures(found)
  asked = steps or ((found.config.distilled,) if found.config.distilled else _STEPS)
  levels = {S: found.levels(S, spacing) for S in asked}
  judge = quality.judge(found.shape[-1], found.config.data.data, inception)
  place.parent.mkdir(parents=True, exist_ok=True)
  real = quality.reference(datasets.open_data(found.config.data), judge, place.parent)
  settings = {
    "judge": judge.name, "judge_sha256": judge.sha256, "reference_sha256": quality.digest(real), "N": num,
    "seed": seed,
  }  # fmt: skip
  rows = _begun(place, settings)
  for solver in solvers or (found.solver,):
    said = [f"eta {eta:g}"] if eta and solver == "ddim" else []
    said += [f"guidance {guidance:g}"] if guidance != 1 else []
    row = ", ".join([name or model, tables.name_of(solver), *said])
    for S, ts in levels.items():
      about = {"step": found.step, "levels": ts.tolist()}
      if about != {key: rows.get(row, {}).get(str(S), {}).get(key) for key in about}:
        drawn = quality.drawn(
          judge, found, ts, num, batch_size, eta=eta if solver == "ddim" else 0.0, solver=solver, seed=seed,
          guidance=guidance,
        )  # fmt: skip
        rows.setdefault(row, {})[str(S)] = about | quality.measure(real, drawn)
        outputs.write_json(place, {"settings": settings, "rows": rows})
      say(f"{row}, S = {S}: {judge.name} {rows[row][str(S)]['frechet']:.3f}")
  say("\n" + table(f"{judge.name}, N = {num:,}", rows) + "\n")
  chart = place.with_suffix(".png")
  lines = {row: _line(values) for row, values in rows.items()}
  plots.save_lines(chart, {f"N = {num:,}": lines}, "steps S", judge.name)
  say(f"measures: {place.absolute()}; chart: {chart.name}")


def _begun(place: Path, settings: dict[str, Any]) -> Rows:
  """The rows that a file already holds.

  Raises:
    ValueError: If it holds something else, or was measured with other settings; names which.
  """
  if not place.exists():
    return {}
  try:
    held = json.loads(place.read_text())
    before, rows = held["settings"], held["rows"]
  except (ValueError, KeyError, TypeError) as error:
    raise ValueError(f"out must be a file of measures or none yet, got {place}: {error}") from error
  if wrong := outputs.differences(before, settings):
    raise ValueError(f"out must hold measures of the same settings, got {place} with {wrong}")
  found: Rows = rows
  return found


def _line(row: dict[str, dict[str, Any]]) -> tuple[list[int], list[float]]:
  """``(S, distances)`` in order."""
  counts = sorted(map(int, row))
  return counts, [row[str(S)]["frechet"] for S in counts]


def table(title: str, rows: Rows) -> str:
  """Frechet distances as a Markdown table, a column for each S."""
  counts = sorted({int(S) for row in rows.values() for S in row})
  cell = lambda row, S: f"{row[str(S)]['frechet']:.2f}" if str(S) in row else ""
  head = [f"| {title} | " + " | ".join(f"S = {S}" for S in counts) + " |", "|---" * (1 + len(counts)) + "|"]
  return "\n".join(
    head + [f"| {name} | " + " | ".join(cell(row, S) for S in counts) + " |" for name, row in rows.items()]
  )


def main(argv: Sequence[str]) -> None:
  """Parses, measures and exits."""
  options.run(evaluate, argv, "ddim evaluate")
