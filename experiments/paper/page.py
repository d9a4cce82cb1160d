"""The page of `experiments.paper`: results in Markdown, beside the paper's own where they compare."""

from collections.abc import Callable, Mapping
from typing import Any

from experiments.paper.study import SIGMA_HAT

_TABLE1 = {
  "cifar10": (
    "CIFAR-10, 50,000 samples, quadratic",
    {
      "eta=0": (13.36, 6.84, 4.67, 4.16, 4.04),
      "eta=0.2": (14.04, 7.11, 4.77, 4.25, 4.09),
      "eta=0.5": (16.66, 8.35, 5.25, 4.46, 4.29),
      "eta=1": (41.07, 18.36, 8.01, 5.78, 4.73),
      "sigma-hat": (367.43, 133.37, 32.72, 9.99, 3.17),
    },
  ),
  "celeb_a": (
    "CelebA 64x64, 50,000 samples, uniform",
    {
      "eta=0": (17.33, 13.73, 9.17, 6.53, 3.51),
      "eta=0.2": (17.66, 14.11, 9.51, 6.79, 3.64),
      "eta=0.5": (19.86, 16.06, 11.01, 8.09, 4.28),
      "eta=1": (33.12, 26.03, 18.48, 13.93, 5.98),
      "sigma-hat": (299.71, 183.83, 71.71, 45.20, 3.26),
    },
  ),
}
"""Table 1 of arXiv:2010.02502: FID at S = 10, 20, 50, 100, 1000."""
_STEPS = (10, 20, 50, 100, 1000)
_TABLE2 = dict(
  zip((10, 20, 50, 100, 200, 500, 1000), (0.014, 0.0065, 0.0023, 0.0009, 0.0004, 0.0001, 0.0001), strict=True)
)
"""Table 2: CIFAR-10 test images."""
_MEASURES = (
  ("Kernel distance", "kernel"),
  ("Inception Score, of that network's classes", "score"),
  ("Precision", "precision"),
  ("Recall", "recall"),
)
Cells = Mapping[str, dict[str, Any]]


def _rows(head: list[str], rows: list[list[str]]) -> str:
  lines = [head, ["---"] * len(head), *rows]
  return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def published(data: Mapping[str, Any]) -> str | None:
  """The key of the paper's data set that this is, if it is one."""
  if data["data"] == "cifar10":
    return "cifar10"
  celeba = data["data"].startswith("tfds:celeb_a") and "hq" not in data["data"]
  return "celeb_a" if celeba and data["image_size"] == 64 else None


def _table1(cells: Cells, paper: str | None) -> str:
  found = {tuple(name.split("/")[1:]): cell for name, cell in cells.items() if name.startswith("table1/")}
  if not found:
    return ""
  rows = sorted({row for row, _ in found}, key=lambda row: (row == SIGMA_HAT, row))
  steps = sorted({int(S.removeprefix("S=")) for _, S in found})
  judges = sorted({cell["settings"]["judge"] for cell in found.values()})

  def block(key: str) -> list[list[str]]:
    cell = lambda row, S: found.get((row, f"S={S}"))
    value = lambda c: "" if c is None else f"{c['result'][key]:.4g} (N = {c['result']['N']:,})"
    return [[row, *(value(cell(row, S)) for S in steps)] for row in rows]

  head = ["", *(f"S = {S}" for S in steps)]
  parts = [f"## Table 1: {', '.join(judges)}\n", _rows(head, block("frechet"))]
  if paper and judges == ["FID"]:
    title, figures = _TABLE1[paper]
    beside = [[row, *(f"{v:g}" for v in values)] for row, values in figures.items()]
    parts += [f"The paper's ({title}):\n", _rows(["", *(f"S = {S}" for S in _STEPS)], beside)]
  for title, key in _MEASURES:
    parts += [f"{title}:\n", _rows(head, block(key))]
  first = next(iter(found.values()))
  real, network = first["result"]["reference_sha256"][:16], first["settings"]["judge_sha256"][:16]
  parts.append(
    f"Reference: {first['result']['reference_N']:,} training images, statistics sha256 {real}; network"
    f" sha256 {network}. Rows of eta are not clipped, sigma-hat clips x0 to [-1, 1]. A Frechet distance falls"
    " with N: compare equal N only."
    + ("" if "FID" in judges else " FD-classifier is not FID, nor comparable with it.")
  )
  parts.append("")
  return "\n".join(parts)


def _table2(cells: Cells, paper: str | None) -> str:
  found = {int(n.rpartition("=")[2]): c["result"] for n, c in cells.items() if n.startswith("table2/")}
  if not found:
    return ""
  steps = sorted(found)
  rows = [["error", *(f"{found[S]['error']:.3g} (N = {found[S]['N']:,})" for S in steps)]]
  if paper == "cifar10":
    rows.append(["the paper's", *(f"{_TABLE2[S]:g}" if S in _TABLE2 else "" for S in steps)])
  head = ["", *(f"S = {S}" for S in steps)]
  note = f"Mean squared error per dimension, images in [0, 1], of {found[steps[0]]['images']}.\n"
  return "\n".join(["## Table 2: reconstruction\n", _rows(head, rows), note])


def _time(result: Mapping[str, Any]) -> str:
  if "seconds_a_step" not in result:
    return ""
  slope, intercept = result["seconds_a_step"], result["seconds_intercept"]
  return (
    f"{result['images']} images: {slope:.3g} s a step, intercept {intercept:.3g} s,"
    f" R^2 = {result['r_squared']:.4f}.\n"
  )


def _bits(result: Mapping[str, Any]) -> str:
  values = [
    f"{result[f'bits_{v}']:.3f} +- {result[f'bits_{v}_error']:.2g} with variance {title}"
    for v, title in (("posterior", "of the posterior"), ("beta", "beta"))
  ]
  note = f"{result['images']} (N = {result['N']:,}; +- is the standard error)"
  return f"At most {' and '.join(values)}, {note}.\n"


_CAPTIONS: dict[str, Callable[[Mapping[str, Any]], str]] = {
  "figure4": _time,
  "levels": lambda result: f"Squared error of eps, test images (N = {result['N']:,}).\n",
  "bits": _bits,
}


def _figures(cells: Cells) -> str:
  captions = {
    "figure3": "Figure 3: samples by S and eta, from the same noise",
    "figure4": "Figure 4: time against the number of steps",
    "figure5": "Figure 5: the same x_T with different S (eta = 0)",
    "figure6": "Figure 6: interpolation between two x_T",
    "levels": "Loss by level",
    "bits": "Bits per dimension",
  }
  parts = []
  for name, caption in captions.items():
    if name not in cells:
      continue
    result = cells[name]["result"]
    parts += [f"## {caption}\n", f"![{caption}]({result['picture']})\n"]
    if name in _CAPTIONS:
      parts.append(_CAPTIONS[name](result))
  return "\n".join(parts)


def page(model: Mapping[str, Any], cells: Cells) -> str:
  """The page.

  Args:
    model: "step", "weights_sha256", and the sections of its configuration.
    cells: Finished cells by name.

  Returns:
    Markdown, with pictures beside it.
  """
  paper = published(model["data"])
  images = model["step"] * model["optimisation"]["batch_size"]
  seeds = sorted({cell["settings"]["seed"] for cell in cells.values()})
  versions = next(iter(cells.values()))["versions"] if cells else {}
  about = (
    f"Averaged weights of step {model['step']:,} ({images:,} images seen), sha256"
    f" {model['weights_sha256'][:16]}; seed {', '.join(map(str, seeds))};"
    f" {', '.join(f'{name} {version}' for name, version in versions.items())}. All settings, with the levels"
    " visited, are in results.json.\n"
  )
  parts = [
    f"# DDIM on {model['data']['data']}: the paper's tables and figures\n",
    about,
    _table1(cells, paper),
    _table2(cells, paper),
    _figures(cells),
  ]
  return "\n".join(part for part in parts if part)
