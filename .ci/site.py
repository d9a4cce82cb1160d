"""Builds the documentation site into build/site: ``python .ci/site.py``.

Broken links and missing docstrings are errors. Pages and pictures are laid side by side as in the repository,
so that links that work there work here. Notebooks are run, and shown with their outputs.
"""

import ast
import inspect
import os
import pkgutil
import re
import shutil
import subprocess
import sys
from pathlib import Path

import notebooks

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "build" / "site-source"
REFERENCE = {
  "core": (
    "Schedules, levels, predictions",
    [
      f"ddim_jax.{name}"
      for name in (
        "schedules",
        "beta_schedules",
        "paths",
        "timesteps",
        "parameterisation",
        "process",
        "scaling",
        "seeds",
      )
    ],
  ),
  "sampling": (
    "Denoisers and sampling",
    [f"ddim_jax.{name}" for name in ("denoisers", "guidance", "sampling", "parallel", "likelihood")],
  ),
  "inversion": (
    "Inversion and inverse problems",
    [f"ddim_jax.{name}" for name in ("inversion", "bijective", "noise_maps", "inverse_problems")],
  ),
  "solvers": (
    "Solvers",
    [
      f"ddim_jax.solvers.{name}"
      for name in (
        "base",
        "ddim",
        "dpm_solver_pp",
        "singlestep",
        "dpm_solver_sde",
        "unipc",
        "deis",
        "heun",
        "lms",
        "pndm",
        "sa_solver",
      )
    ],
  ),
  "data": (
    "Data",
    [
      f"ddim_jax.data.{name}"
      for name in ("sources", "folders", "arrays", "hub", "pictures", "batches", "report")
    ],
  ),
  "unet": ("The U-Net", ["ddim_jax.unet"]),
  "models": (
    "Models",
    ["ddim_jax.models.loading", "ddim_jax.models.model", "ddim_jax.models.custom", "ddim_jax.models.tables"],
  ),
  "runs": (
    "Runs and training",
    ["ddim_jax.runs.loop", "ddim_jax.runs.halving", "ddim_jax.training", "ddim_jax.distillation"],
  ),
  "plots": ("Pictures", [f"ddim_jax.plots.{name}" for name in ("grids", "image_files", "curves")]),
  "metrics": (
    "Metrics",
    [
      f"ddim_jax.metrics.{name}"
      for name in ("frechet", "kernel", "inception_score", "precision_recall", "inception")
    ],
  ),
  "interop": (
    "Weights of others",
    [f"ddim_jax.interop.{name}" for name in ("diffusers", "original", "pretrained")],
  ),
}
"""Page -> its title and the modules on it."""
MODULES = [module for _, modules in REFERENCE.values() for module in modules]


def undocumented(module: str) -> list[str]:
  """What is public in a module, methods too, and says nothing of itself."""
  path = ROOT / f"{module.replace('.', '/')}.py"
  tree = ast.parse((path if path.exists() else path.with_suffix("") / "__init__.py").read_text())
  classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
  found = [(module, node) for node in tree.body]
  found += [(f"{module}.{parent.name}", node) for parent in classes for node in parent.body]
  return [
    f"{place}.{node.name}"
    for place, node in found
    if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    if not ast.get_docstring(node)
  ]


def entry_of(dotted: str) -> str | None:
  """Where the reference has a function, class or module, by its name for users; None where it has not."""
  try:
    found = pkgutil.resolve_name(dotted)
  except (ImportError, AttributeError):
    return None
  if inspect.ismodule(found):
    return dotted if dotted in MODULES else None
  if not inspect.isfunction(found) and not inspect.isclass(found):
    return None
  places = (found.__module__, found.__module__.rpartition(".")[0])  # a package shows what it exports
  return next((f"{place}.{found.__qualname__}" for place in places if place in MODULES), None)


def linked(text: str) -> str:
  """Markdown in which names of ours, written as code, lead to the reference."""

  def link(match: re.Match[str]) -> str:
    entry = entry_of(match[1])
    return f"[{match[0]}][{entry}]" if entry else match[0]

  return re.sub(r"(?<!\[)`(ddim_jax(?:\.\w+)+)`", link, text)


def lay() -> None:
  """Copies what the site shows, runs the notebooks, and writes a page of reference for each layer."""
  shutil.rmtree(SOURCE, ignore_errors=True)
  (SOURCE / "reference").mkdir(parents=True)
  as_page = re.sub(r"(docs/notebooks/\w+)\.py\b", r"\1.md", (ROOT / "README.md").read_text())
  (SOURCE / "README.md").write_text(as_page)
  shutil.copytree(ROOT / "docs", SOURCE / "docs", ignore=shutil.ignore_patterns("*.py"))
  repository = os.environ.get("GITHUB_REPOSITORY", "")
  notebooks.write(SOURCE / "docs" / "notebooks", ROOT / "build" / "notebooks", repository)
  for page in SOURCE.rglob("*.md"):
    page.write_text(linked(page.read_text()))
  shutil.copytree(ROOT / "experiments" / "results", SOURCE / "experiments" / "results")
  (SOURCE / "ddim_jax" / "models").mkdir(parents=True)
  for card in (ROOT / "ddim_jax" / "models").glob("*.md"):
    shutil.copy(card, SOURCE / "ddim_jax" / "models")
  for name, (title, modules) in REFERENCE.items():
    entries = "".join(f"::: {module}\n\n" for module in modules)
    (SOURCE / "reference" / f"{name}.md").write_text(f"# {title}\n\n{entries}")


if __name__ == "__main__":
  if missing := [name for module in MODULES for name in undocumented(module)]:
    sys.exit(f"without a docstring: {', '.join(missing)}")
  lay()
  config = ROOT / ".ci" / "mkdocs.yml"
  command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", str(config)]
  sys.exit(subprocess.run(command, check=False).returncode)
