"""README.md and docs/: their blocks of code, their commands, and how the tests make them small.

A comment ``<!-- tests: long => short; ... -->`` above a block says what the tests put in place of what, and
``<!-- tests: not run -->`` that they leave it out.
"""

import re
import shlex
from typing import NamedTuple

from tests.helpers import ROOT

README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
_BLOCK = re.compile(r"(?:<!-- tests: ([^\n]*) -->\n)?^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NOT_RUN = "not run"


class Block(NamedTuple):
  """A block of code.

  Attributes:
    language: What follows the backquotes; "" for a shell.
    text: As the reader sees it.
    marker: What the comment above it says, or "".
  """

  language: str
  text: str
  marker: str

  def small(self) -> str:
    """The text with what the marker puts in place; each must occur."""
    text = self.text
    for change in filter(None, self.marker.split("; ")):
      before, after = change.split(" => ")
      assert before in text, before
      text = text.replace(before, after)
    return text


def blocks(page, language) -> list[Block]:
  """Blocks of a page in a language that are run."""
  found = [Block(kind, text, marker or "") for marker, kind, text in _BLOCK.findall(page.read_text())]
  return [block for block in found if block.language == language and block.marker != NOT_RUN]


def script(page) -> str:
  """All Python of a page, as one program of small settings."""
  return "\n".join(block.small() for block in blocks(page, "python"))


def lines(text) -> list[list[str]]:
  """Commands of a block of shell, one a line, as lists of words without their comments."""
  return [words for line in text.splitlines() if (words := shlex.split(line, comments=True))]


def commands(page) -> list[list[str]]:
  """Commands of this project on a page, in blocks and in running text."""
  text = page.read_text()
  found = [words for block in blocks(page, "") for words in lines(block.text)]
  prose = _BLOCK.sub("", text)
  inline = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose)]
  found += [shlex.split(code) for code in inline if code.startswith(("ddim ", "python -m experiments"))]
  return [words for words in found if words[0] == "ddim" or words[:2] == ["python", "-m"]]
