"""The notebooks of docs/notebooks, run as for the site; each in a kernel of its own."""

import importlib.util

import pytest

from tests.helpers import ROOT

_SPEC = importlib.util.spec_from_file_location("notebooks", ROOT / ".ci" / "notebooks.py")
notebooks = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(notebooks)

nbformat = pytest.importorskip("nbformat", reason="needs nbclient and ipykernel: the extra release")
MODULES = {"your_own_network": ("equinox", "haiku")}
"""What a notebook needs besides the extra train."""


@pytest.mark.slow
@pytest.mark.parametrize("path", notebooks.NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_its_page_shows_pictures(path, compilation_cache):
  for name in ("nbclient", "ipykernel", *MODULES.get(path.stem, ())):
    pytest.importorskip(name)
  notebook = notebooks.read(path)
  notebooks.run(notebook, {"JAX_COMPILATION_CACHE_DIR": str(compilation_cache), "XLA_FLAGS": ""})
  page = notebooks.page(notebook, path.stem)
  assert page.text.startswith("# ")
  assert page.pictures
  for name, content in page.pictures.items():
    assert content.startswith(b"\x89PNG")
    assert f"]({name})" in page.text
  assert "Error" not in page.text


def test_cells_are_those_of_the_text(tmp_path):
  path = tmp_path / "x.py"
  path.write_text("# %% [markdown]\n# # Title\n#\n# Words.\n\n# %%\n# a comment\n1 + 1\n\n\n# %%\nx = 2\n")
  cells = notebooks.read(path).cells
  assert [(cell.cell_type, cell.source) for cell in cells] == [
    ("markdown", "# Title\n\nWords."), ("code", "# a comment\n1 + 1"), ("code", "x = 2"),
  ]  # fmt: skip
  path.write_text("1 + 1\n# %%\n")
  with pytest.raises(ValueError, match="must begin with a mark of a cell"):
    notebooks.read(path)


@pytest.mark.parametrize("path", notebooks.NOTEBOOKS, ids=lambda path: path.stem)
def test_where_the_site_is_published_a_notebook_opens_in_colab(path):
  title, badge, install, *cells = notebooks.read(path, "owner/name").cells
  target = (
    f"https://colab.research.google.com/github/owner/name/blob/gh-pages/docs/notebooks/{path.stem}.ipynb"
  )
  assert badge.source.endswith(f"]({target})")
  assert "git+https://github.com/owner/name" in install.source
  assert title.source.startswith("# ")
  assert [cell.source for cell in (title, *cells)] == [cell.source for cell in notebooks.read(path).cells]
  site = (ROOT / ".ci" / "mkdocs.yml").read_text()
  assert f": docs/notebooks/{path.stem}.md" in site
  assert f"(docs/notebooks/{path.name})" in (ROOT / "README.md").read_text()


def test_a_page_has_code_and_what_it_shows_in_their_order():
  cell = nbformat.v4.new_code_cell("draw()")
  cell.outputs = [
    nbformat.v4.new_output("stream", name="stdout", text="said\n"),
    nbformat.v4.new_output("stream", name="stderr", text="a warning\n"),
    nbformat.v4.new_output("execute_result", {"image/png": "iVBORw==", "text/plain": "<Image>"}),
    nbformat.v4.new_output("execute_result", {"text/plain": "7"}),
  ]
  page = notebooks.page(nbformat.v4.new_notebook(cells=[cell]), "x")
  assert page.pictures == {"x_0.png": b"\x89PNG"}
  assert page.text.startswith("```python\ndraw()\n```\n\n```text\nsaid\n```\n\n![")
  assert page.text.index("x_0.png") < page.text.index("```text\n7\n```")
  assert "warning" not in page.text
  assert "<Image>" not in page.text
