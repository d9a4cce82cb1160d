"""The notebooks of docs/notebooks: text with marks of cells, so that changes can be read; run for the site.

The site shows each with its outputs, gives it as .ipynb, and has a link that opens it in Colab.
"""

import base64
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.py"))
BRANCH = "gh-pages"
"""Where the site lies, and so the notebooks that Colab opens."""
_COLAB = "https://colab.research.google.com"


class Page(NamedTuple):
  """A notebook on the site.

  Attributes:
    text: Markdown.
    pictures: Name of a file -> PNG.
  """

  text: str
  pictures: dict[str, bytes]


def read(path: Path, repository: str = "") -> Any:
  """The notebook of a text; with a repository, OWNER/NAME, one for Colab, where it installs the package.

  Raises:
    ValueError: If the text does not begin with a mark of a cell.
  """
  import nbformat

  make = {"": nbformat.v4.new_code_cell, " [markdown]": nbformat.v4.new_markdown_cell}
  head, *parts = re.split(r"^# %%( \[markdown\])?\n", path.read_text(), flags=re.MULTILINE)
  if head:
    raise ValueError(f"{path} must begin with a mark of a cell, got {head[:40]!r}")
  cells = []
  for kind, text in zip(parts[::2], parts[1::2], strict=True):
    text = text.strip()
    cells.append(make[kind or ""](re.sub(r"^# ?", "", text, flags=re.MULTILINE) if kind else text))
  if repository:
    shown, install = badge(path.stem, repository), _INSTALL.format(repository)
    cells[1:1] = [nbformat.v4.new_markdown_cell(shown), nbformat.v4.new_code_cell(install)]  # below the title
  notebook = nbformat.v4.new_notebook(cells=cells)
  notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python", "language": "python"}
  return notebook


_INSTALL = """\
import sys

if "google.colab" in sys.modules:
  %pip install --quiet dm-haiku equinox "ddim_jax[train] @ git+https://github.com/{}\""""


def badge(name: str, repository: str) -> str:
  """A picture that opens the notebook of this name in Colab, in Markdown."""
  target = f"{_COLAB}/github/{repository}/blob/{BRANCH}/docs/notebooks/{name}.ipynb"
  return f"[![Open in Colab]({_COLAB}/assets/colab-badge.svg)]({target})"


def run(notebook: Any, environment: dict[str, str] | None = None) -> None:
  """Runs all cells in a kernel of its own, in an empty folder; what they show is in the notebook then."""
  import nbclient

  with tempfile.TemporaryDirectory() as folder:
    places = {"PYTHONPATH": str(ROOT), "IPYTHONDIR": folder}
    client = nbclient.NotebookClient(
      notebook, timeout=600, startup_timeout=300, resources={"metadata": {"path": folder}}
    )
    client.execute(env={**os.environ, **places, **(environment or {})})


def page(notebook: Any, name: str) -> Page:
  """A notebook that was run, as a page, with a link to itself as a file."""
  parts: list[str] = []
  pictures: dict[str, bytes] = {}
  for cell in notebook.cells:
    if cell.cell_type == "markdown":
      parts.append(cell.source)
      continue
    parts.append(f"```python\n{cell.source}\n```")
    if said := "".join(output.text for output in cell.outputs if output.get("name") == "stdout"):
      parts.append(f"```text\n{said.rstrip()}\n```")
    for shown in (output.get("data", {}) for output in cell.outputs):
      if "image/png" in shown:
        file = f"{name}_{len(pictures)}.png"
        pictures[file] = base64.b64decode(shown["image/png"])
        parts.append(f"![What the cell above shows]({file})")
      elif "text/plain" in shown:
        parts.append(f"```text\n{shown['text/plain'].rstrip()}\n```")
  parts.append(f"[This notebook as a file]({name}.ipynb), with its outputs.")
  return Page("\n\n".join(parts) + "\n", pictures)


def write(folder: Path, kept: Path, repository: str) -> None:
  """Writes pages, pictures and notebooks into a folder of the site.

  Args:
    folder: Of the site.
    kept: Where notebooks that were run stay; they are run again when they or the package have changed.
    repository: OWNER/NAME where the site is published, or "".
  """
  import nbformat

  kept.mkdir(parents=True, exist_ok=True)
  package = max(path.stat().st_mtime for path in (ROOT / "ddim_jax").rglob("*.py"))
  for path in NOTEBOOKS:
    notebook, file = read(path, repository), kept / f"{path.stem}.ipynb"
    done = nbformat.read(file, as_version=4) if file.exists() else None
    fresh = done and file.stat().st_mtime > max(package, path.stat().st_mtime)
    if not fresh or [cell.source for cell in done.cells] != [cell.source for cell in notebook.cells]:
      print(f"running {path.name}", flush=True)
      run(notebook)
      nbformat.write(notebook, file)
      done = notebook
    shown = page(done, path.stem)
    (folder / f"{path.stem}.md").write_text(shown.text)
    for name, content in shown.pictures.items():
      (folder / name).write_bytes(content)
    shutil.copy(file, folder)
