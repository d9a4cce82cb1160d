"""The page about accelerators, from the results of `experiments.bench.cross`."""

import json
from pathlib import Path
from typing import Any

from experiments.bench.programs import NETWORKS

_HEAD = """# Compiled for accelerators, without one

Written by `python -m experiments.bench compile --target NAME --network NETWORK`, which compiles on a CPU for
a device that is not there. Nothing on this page ran on an accelerator, and kernels of a GPU are not tuned.
All numbers are for one device: a chip, or one of the two cores of a TPU v4.

- **kernels**: fusions and calls of libraries; in brackets those that Triton compiles. What is inside of a
  loop counts once, so a sampler counts as one of its steps.
- **other**: further operations that run on their own: copies, and on a TPU arithmetic on scalars.
- **collectives**: how often, and how much each device sends.
- **memory**: arguments, results that are not written over them, intermediate results and code, by the
  compiler's account; on a GPU, workspaces of cuDNN come on top.
- **largest batch**: the largest power of two for which that fits into what the TPU compiler allows, or into
  the 75 % of a GPU that JAX takes. *Extrapolated*: intermediate results are taken to be proportional to the
  batch, from the one that was compiled. *Compiled*: so many images were compiled, and did not fit twice.
- **GFLOP**: XLA's count of the program as written, with direct convolutions.
- **GB moved**: what all kernels read and write, without caches.
- **roofline**: the larger of GFLOP at the maker's peak rate and GB at the maker's bandwidth. These kernels
  cannot be faster, and may be slower.
- **compile**: seconds of CPU on the machine that made this page.
"""
_COLUMNS = (
  "| target | program | batch | kernels | other | collectives | memory, GB | largest batch | GFLOP | GB moved"
  " | roofline, ms | compile, CPU s |\n|" + "---|" * 12
)


def write_page(folder: Path) -> None:
  """Writes FOLDER/accelerators.md from all FOLDER/target_*.json."""
  found = [json.loads(path.read_text()) for path in sorted(folder.glob("target_*.json"))]
  lines = [_HEAD]
  for name, network in NETWORKS.items():
    rows = [_row(each, kind) for each in found if each["network"] == name for kind in each["programs"]]
    if rows:
      lines += [f"## {network.title}\n", _COLUMNS, *rows, ""]
  versions = {version for each in found for version in each["compilers"].split(", ")}
  lines += [f"{', '.join(sorted(versions))}.", ""]
  (folder / "accelerators.md").write_text("\n".join(lines))


def _row(results: dict[str, Any], kind: str) -> str:
  made = results["programs"][kind]
  devices = f" ({made['devices']} devices)" if made["devices"] > 1 else ""
  program = f"{kind}, {results['channels']} channels, {results['dtype']}"
  cells = [results["target"] + devices, program, f"{results['batch_a_device']}"]
  batch = "{:,} ({})".format(*made["largest_batch"]) if "largest_batch" in made else ""
  seconds = f"{made['cpu_seconds_to_compile']:.0f}"
  if "kernels" not in made:
    return _line([*cells, "", "", "", "does not fit", batch, f"{made['gflop']:,.0f}", "", "", seconds])
  triton = f" ({made['triton']:,})" if made["triton"] else ""
  sent = [f"{number} {kind}, {size / 1e6:,.1f} MB" for kind, (number, size) in made["collectives"].items()]
  roof = made["roofline_ms"]
  bound = "arithmetic" if roof["arithmetic"] >= roof["memory"] else "memory"
  return _line([
    *cells, f"{made['kernels']:,}{triton}", f"{sum(made['others'].values()):,}", "; ".join(sent) or "none",
    f"{made['memory']['total'] / 1e9:.2f}", batch, f"{made['gflop']:,.0f}", f"{made['bytes'] / 1e9:.2f}",
    f"{roof['step']:.2f} ({bound})", seconds,
  ])  # fmt: skip


def _line(cells: list[str]) -> str:
  return f"| {' | '.join(cells)} |"
