"""Formulas of docstrings, written as for Sphinx, as MathML, which browsers show: mkdocstrings uses it."""

import re
import textwrap
from typing import Any

import griffe
from latex2mathml.converter import convert

_BLOCK = re.compile(r"^( *)\.\. math::(.*)\n((?:\1 +.*\n|[ ]*\n)*)", re.MULTILINE)
_INLINE = re.compile(r":math:`([^`]+)`")
_JOINED = "&#8288;"
"""Nothing to see; without it, a formula at the beginning of a line would be a paragraph."""


def _mathml(latex: str, display: str) -> str:
  """A formula, in which nothing can be taken for Markdown."""
  return convert(" ".join(latex.split()), display=display).replace("*", "&#42;").replace("_", "&#95;")


def shown(docstring: str) -> str:
  """A docstring with its formulas as MathML."""

  def block(found: re.Match[str]) -> str:
    latex = f"{found[2]} {textwrap.dedent(found[3])}"
    return f"{found[1]}{_mathml(latex, 'block')}\n\n"

  text = _BLOCK.sub(block, f"{docstring}\n")
  return _INLINE.sub(lambda found: _JOINED + _mathml(found[1], "inline"), text).rstrip("\n")


class Formulas(griffe.Extension):
  """Changes each docstring as it is read."""

  def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
    """One module, class, function or attribute."""
    if obj.docstring:
      obj.docstring.value = shown(obj.docstring.value)
