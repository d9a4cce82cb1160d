"""The notebooks of docs/notebooks, text with marks of cells, run; each in a kernel of its own."""

import re

import pytest

from tests.helpers import ROOT

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_a_picture(path, tmp_path, compilation_cache, monkeypatch):
  nbclient = pytest.importorskip("nbclient", reason="needs nbclient and ipykernel: the extra release")
  nbformat = pytest.importorskip("nbformat")
  pytest.importorskip("ipykernel")
  make = {"": nbformat.v4.new_code_cell, " [markdown]": nbformat.v4.new_markdown_cell}
  parts = re.split(r"^# %%( \[markdown\])?\n", path.read_text(), flags=re.MULTILINE)
  assert parts[0] == ""
  cells = [make[kind or ""](text.strip()) for kind, text in zip(parts[1::2], parts[2::2], strict=True)]
  monkeypatch.setenv("PYTHONPATH", str(ROOT))
  monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(compilation_cache))
  monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
  monkeypatch.delenv("XLA_FLAGS", raising=False)
  notebook = nbformat.v4.new_notebook(cells=cells)
  notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python", "language": "python"}
  resources = {"metadata": {"path": str(tmp_path)}}
  client = nbclient.NotebookClient(notebook, timeout=240, resources=resources)
  client.execute()
  shown = [output for cell in notebook.cells for output in cell.get("outputs", ())]
  assert any("image/png" in output.get("data", {}) for output in shown)
