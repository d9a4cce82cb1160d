"""What the documentation site is built of; ``make docs`` builds it, and refuses broken links."""

import importlib
import importlib.util
import re

import pytest

from tests import pages
from tests.helpers import ROOT


@pytest.fixture
def site(monkeypatch):
  """The program that builds it."""
  monkeypatch.syspath_prepend(str(ROOT / ".ci"))
  spec = importlib.util.spec_from_file_location("site_of_docs", ROOT / ".ci" / "site.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def test_the_reference_is_of_modules_that_exist_and_are_documented(site):
  modules = [module for _, modules in site.REFERENCE.values() for module in modules]
  assert len(set(modules)) == len(modules)
  assert [name for module in modules for name in site.undocumented(module)] == []
  navigation = (ROOT / ".ci" / "mkdocs.yml").read_text()
  assert all(f": reference/{name}.md" in navigation for name in site.REFERENCE)


def test_a_function_or_method_without_a_docstring_is_named(site, tmp_path, monkeypatch):
  functions = "def f(): pass\ndef g():\n  'said'\ndef _h(): pass\n"
  methods = "class C:\n  'said'\n  def m(self): pass\n  def _n(self): pass\n"
  (tmp_path / "x.py").write_text(functions + methods)
  monkeypatch.setattr(site, "ROOT", tmp_path)
  assert site.undocumented("x") == ["x.f", "x.C.m"]


@pytest.mark.parametrize(
  ("name", "entry"),
  [
    ("ddim_jax.ddim", "ddim_jax.solvers.ddim.ddim"),
    ("ddim_jax.timesteps.uniform", "ddim_jax.timesteps.uniform"),
    ("ddim_jax.UNet", "ddim_jax.unet.UNet"),
    ("ddim_jax.training.example_losses", "ddim_jax.training.example_losses"),
    ("ddim_jax.likelihood", "ddim_jax.likelihood"),
    ("ddim_jax.runs.fit", "ddim_jax.runs.loop.fit"),
  ],
)
def test_a_name_as_code_leads_to_its_entry(site, name, entry):
  assert site.linked(f"so `{name}` does") == f"so [`{name}`][{entry}] does"


@pytest.mark.parametrize(
  "text", ["`ddim_jax.EPS`", "`ddim_jax.none_such`", "[`ddim_jax.ddim`](page.md)", "ddim_jax.ddim"]
)
def test_all_else_stays(site, text):
  assert site.linked(text) == text


def test_every_page_and_what_pages_link_to_is_in_the_navigation():
  navigation = (ROOT / ".ci" / "mkdocs.yml").read_text()
  linked = {
    (page.parent / name).resolve()
    for page in pages.PAGES
    for name in re.findall(r"\]\((?!http)([^)#]+\.md)", page.read_text())
  }
  for page in {*pages.PAGES, *linked, *(ROOT / "ddim_jax" / "models").glob("*.md")}:
    assert f": {page.relative_to(ROOT)}" in navigation, page


def test_every_result_of_a_benchmark_is_listed():
  folder = ROOT / "experiments" / "results" / "bench"
  text = (folder / "README.md").read_text()
  assert [
    path.name for path in folder.iterdir() if path != folder / "README.md" and f"({path.name})" not in text
  ] == []


def test_formulas_become_mathml_and_words_stay(site):
  for name in ("griffe", "latex2mathml"):
    pytest.importorskip(name, reason="needs the extra docs")
  maths = importlib.import_module("maths")  # the fixture has put its folder on the path
  text = "With :math:`\\alpha_t * x`, and\n\n.. math::\n  a\n  = b\n\nArgs:\n  x: The :math:`x`."
  found = maths.shown(text)
  assert found.count("</math>") == 3
  assert found.count('display="block"') == 1
  assert not set("*_") & set(found)  # Markdown would take them for emphasis
  words = re.sub("<math.*?</math>", "F", found).replace("&#8288;", "")
  assert words == "With F, and\n\nF\n\nArgs:\n  x: The F."
