"""Everything about one GPU in one command: ``python -m experiments.bench accelerator``.

Each side is a process of its own, and they take turns, so that none holds the memory of another. This process
itself stays on the CPU.
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from ddim_jax import interop
from experiments.bench import measure, peers, sides

Part = Literal["product", "sample", "start", "train", "parity"]
_OURS, _TORCH = "experiments.bench.accelerator_ours", "experiments.bench.accelerator_torch"
_EAGER = ("TF32", "TF32, channels_last", "bfloat16, channels_last")
_COMPILED, _GRAPHS = (f"bfloat16, channels_last, {how}" for how in ("compiled", "CUDA graphs"))
_MINE, _WIDE = "ddim_jax, bfloat16", "ddim_jax, float32"
_TUNED = "ddim_jax, bfloat16, products of Triton"
"""With what `ddim_jax.tuning` leaves out."""
_PRODUCT = f"product/large/{_MINE}"
_SIDES = (_MINE, _TUNED, _WIDE, *(f"torch, {side}" for side in (*_EAGER, _COMPILED, _GRAPHS)))
_MINUTES = 6
"""The seconds of the groups are for so many minutes."""


def _groups(
  sample: tuple[int, int], train: tuple[int, int], compiled: bool, cache: Path
) -> list[sides.Group]:
  """What is measured, in the order of its importance: later groups may find no time left."""
  cached = {"JAX_COMPILATION_CACHE_DIR": str(cache), "CUDA_CACHE_PATH": str(cache / "cuda")}
  tuned = {"XLA_FLAGS": "--xla_gpu_enable_triton_gemm=true"}
  many, few = (f"sample/{number}" for number in sample)
  large, small = (f"train/{number}" for number in train)
  each = lambda side, *cases: tuple(f"{case}/{side}" for case in cases)
  eager = tuple(task for case in (many, few, large, small) for side in _EAGER for task in each(side, case))
  wide = ("parity/output/here", *each(_WIDE, many, few), "parity/gradient/here")
  groups = [
    sides.Group(_OURS, (_PRODUCT, *each(_MINE, many, few)), 100, {}),
    sides.Group(_TORCH, (*each(_COMPILED, many), *each(_GRAPHS, few)), 90, {}),
    sides.Group(_OURS, ("start/cold/preset",), 150, cached),
    sides.Group(_OURS, ("start/cached/preset",), 60, cached),
    sides.Group(_OURS, each(_MINE, large), 100, {}),
    sides.Group(_TORCH, each(_COMPILED, large), 100, {}),
    sides.Group(_TORCH, eager, 60, {}),
    sides.Group(_OURS, wide, 150, {}),
    sides.Group(_OURS, each(_TUNED, many), 150, tuned),
    sides.Group(_OURS, each(_MINE, small), 100, {}),
    sides.Group(_TORCH, each(_COMPILED, small, few), 150, {}),
    sides.Group(_TORCH, each(_GRAPHS, large, small, many), 200, {}),
    sides.Group(_OURS, each(_TUNED, few, large, small), 400, tuned),
  ]
  return [group for group in groups if compiled or not {_COMPILED, _GRAPHS} & _sides(group)]


def _sides(group: sides.Group) -> set[str]:
  return {task.split("/")[2] for task in group.tasks}


def accelerator(
  network: Literal["cifar10", "tiny"] = "cifar10",
  minutes: float = _MINUTES,
  parts: tuple[Part, ...] = ("product", "sample", "start", "train", "parity"),
  steps: int = 10,
  rounds: int = 5,
  compiled: bool | None = None,
  out: Path = measure.OUT,
) -> None:
  """Sampling and training against torch on the GPU that is here, time to the first step, parity with a CPU.

  What finds no time within --minutes is reported as not measured. The file of an earlier run on such a device
  keeps the parts that are not asked for now: ``--parts product sample parity`` and ``--parts start train``
  measure in two runs what one may not have time for.

  Args:
    network: cifar10, or tiny, which is done within a minute on a CPU.
    minutes: Time for all of it.
    parts: What to measure.
    steps: Steps S of sampling.
    rounds: How often each call is timed.
    compiled: Also measure torch.compile; by default with cifar10.
    out: Folder for the JSON and the chart.
  """
  measure.positive(steps=steps, rounds=rounds)
  if minutes <= 0:
    raise ValueError(f"--minutes must be positive, got {minutes}")
  end = time.monotonic() + 60 * minutes
  jax.config.update("jax_platforms", "cpu")  # of this process; the others have what the environment says
  tiny = network == "tiny"
  compiled = not tiny if compiled is None else compiled
  batches = ((4, 2), (4, 2)) if tiny else ((256, 8), (256, 128))
  name = f"accelerator_{network}"
  path = out / f"{name}.json"
  before = json.loads(path.read_text()) if path.exists() else {"about": {}, "rows": {}}
  kept = {task: row for task, row in before["rows"].items() if task.split("/")[0] not in parts}
  with tempfile.TemporaryDirectory() as place:
    folder = peers.write(network, Path(place) / "model")
    work = _gflop(folder)
    given: dict[str, Any] = {
      "folder": str(folder), "steps": steps, "rounds": rounds, "updates": 2 if tiny else 10,
      "product": 256 if tiny else 8192, "parity_batch": 2,
      "preset": "digits" if tiny else "cifar10", "preset_batch": 8 if tiny else 128,
    }  # fmt: skip
    if tiny:
      given["model"] = {"channels": 8, "multipliers": (1,), "blocks": 1, "attention": (), "groups": 4}
    groups = _groups(*batches, compiled, Path(place) / "cache")
    asked = [g._replace(tasks=tuple(t for t in g.tasks if t.split("/")[0] in parts)) for g in groups]
    rows: dict[str, sides.Row] = {
      task: {"not measured": "no time left"} for group in asked for task in group.tasks
    }
    settings: dict[str, Any] = {
      "network": network, "minutes": minutes, "steps": steps, "rounds": rounds, "gflop_an_image": work,
      "torch_compile": "measured" if compiled else "left out",
    }  # fmt: skip
    about: dict[str, sides.Row] = {}
    compared = rows
    for group in asked:
      left = end - time.monotonic()
      if not group.tasks or left < 1:
        continue
      found = sides.start(group, given, min(left, group.seconds * max(1, minutes / _MINUTES)))
      about |= {key: found.pop(key) for key in ("machine", "torch") if key in found}
      rows |= found
      for task, row in found.items():
        print(f"{task}: {json.dumps(row)}", flush=True)
      if any(before["about"].get(key, value) != value for key, value in about.items()):
        before["about"], kept = {}, {}  # of another machine
      about = before["about"] | about
      compared = _compared(kept | rows, work)
      measure.write(name, settings | {"about": about, "rows": compared}, out)
  bars = {
    f"{case} {side}": row["times_ours"]
    for case, sides in _table(compared).items()
    for side, row in sides.items()
    if "times_ours" in row
  }
  device = about.get("machine", {}).get("device", "nothing measured")
  results = settings | {"about": about, "rows": compared}
  measure.report(name, results, out, bars, "times as long as ours", str(device))
  print(readme(results))


def _gflop(folder: Path) -> float:
  """GFLOP of the network for an image, by direct convolutions."""
  loaded = interop.load_diffusers(folder)
  x = np.zeros((1, *peers.image_shape(loaded)), np.float32)
  return measure.gflop(loaded.model, loaded.variables, x, jnp.int32(1))


def _table(rows: dict[str, sides.Row]) -> dict[str, dict[str, sides.Row]]:
  """The rows of sampling and training by case and side; those of torch say so."""
  table: dict[str, dict[str, sides.Row]] = {}
  for task, row in rows.items():
    part, case, side = task.split("/")
    if part in ("sample", "train"):
      side = side if side.startswith("ddim_jax") else f"torch, {side}"
      table.setdefault(f"{part} {case}", {})[side] = row
  return table


def _compared(rows: dict[str, sides.Row], work: float) -> dict[str, sides.Row]:
  """The rows with how many times as long as ours they take, their rate, and its fraction of a product's."""
  product = rows.get(_PRODUCT, {}).get("tflop_per_second")
  compared = {}
  for task, row in rows.items():
    part, case, _ = task.split("/")
    if part in ("sample", "train") and "milliseconds" in row:
      # The two halves of the backward pass cost a forward pass each.
      each = work if part == "sample" else 3 * work * int(case)
      rate = each / row["milliseconds"]
      row = row | {"tflop_per_second": round(rate, 4)}
      if product:
        row["fraction_of_product"] = round(rate / product, 4)
      if ours := rows.get(f"{part}/{case}/{_MINE}", {}).get("milliseconds"):
        row["times_ours"] = round(row["milliseconds"] / ours, 3)
    compared[task] = row
  return compared


def readme(results: dict[str, Any]) -> str:
  """Rows for the README, in Markdown; what was not measured says so."""
  rows, missing = results["rows"], "not measured"
  number = lambda task, key: rows.get(task, {}).get(key, missing)
  device = results["about"].get("machine", {}).get("device", missing)
  lines = [
    f"| {device}: ms (times as long as ours) | " + " | ".join(_SIDES) + " |",
    "|" + "---|" * (1 + len(_SIDES)),
  ]
  for case, measured in _table(rows).items():
    cells = []
    for side in _SIDES:
      row = measured.get(side, {})
      times = f" ({row['times_ours']:.2f})" if "times_ours" in row else ""
      cells.append(f"{row['milliseconds']:.4g}{times}" if "milliseconds" in row else missing)
    unit = "an image and step" if case.startswith("sample") else "a step"
    lines.append(f"| {case}, {unit} | " + " | ".join(cells) + " |")
  first = lambda case: number(f"start/{case}/preset", "seconds")
  lines += [
    "",
    f"First training step: {first('cold')} s, with the compilation cache {first('cached')} s.",
    f"A large bfloat16 product: {number(_PRODUCT, 'tflop_per_second')} TFLOP/s.",
  ]
  for what in ("output", "gradient"):
    for name, row in rows.get(f"parity/{what}/here", {}).items():
      if isinstance(row, dict):
        lines.append(f"Parity of the {what}, {name}: {row['relative_rms']:.2g} relative RMS.")
  return "\n".join(lines)
