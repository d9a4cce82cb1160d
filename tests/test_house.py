"""Which part may know of which, read from the imports themselves."""

import ast
import graphlib
import re
from collections import Counter

import pytest

from tests.helpers import ROOT

PACKAGE = ROOT / "ddim_jax"
FILES = [path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.name[:2] != "__"]
PROGRAMS = [path for path in (ROOT / "experiments").rglob("*.py") if "bench" not in path.parts]
ABOVE_THE_CORE = {
  "unet": 1,
  "training": 1,
  "distillation": 1,
  "data": 1,
  "metrics": 1,
  "interop": 1,
  "checkpoints": 1,
  "plots": 1,
}
LAYERS = ABOVE_THE_CORE | {"models": 2, "runs": 3, "app": 3, "commands": 4}
"""Part of the package -> its layer; the core, 0, is all the rest."""
LONG = {
  "metrics/inception.py: __call__": "the network from top to bottom, as it was published",
  "unet/network.py: __call__": "the network from top to bottom, as in the module's docstring",
  "runs/loop.py: fit": "forty arguments, each with its line; what it does is spread over the files beside it",
}
"""Functions of more than 60 lines -> why."""


def part(path):
  """The first name below the package."""
  return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path):
  """All modules that a file imports, also inside of functions, as dotted names."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      yield node.module
      yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_part_imports_only_what_lies_below_it(path):
  own = LAYERS.get(part(path), 0)
  for name in imports(path):
    assert not name.startswith("experiments"), name
    if name.startswith("ddim_jax."):
      other = name.split(".")[1]
      assert other == part(path) or LAYERS.get(other, 0) <= own, name
    if name.split(".")[0] == "tyro":
      assert part(path) == "commands"


def test_no_file_imports_itself_by_way_of_others():
  """As Python runs them: imports inside of functions, and those for type checkers, come later."""
  name_of = lambda path: ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
  known = {name_of(path) for path in PACKAGE.rglob("*.py")}
  graph = {}
  for path in FILES:
    found = set()
    for node in ast.parse(path.read_text()).body:
      if isinstance(node, ast.Import):
        found |= {alias.name for alias in node.names}
      elif isinstance(node, ast.ImportFrom):
        found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    graph[name_of(path)] = (found & known) - {"ddim_jax", name_of(path.parent / "__init__.py")}
  list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError


def test_a_file_fits_one_reading():
  """And a function a screen, its docstring apart."""
  long = {path.name: count for path in FILES if (count := len(path.read_text().splitlines())) > 250}
  assert long.keys() <= {"model.py"}, long  # one class, and more than half of it says what its methods do
  found = {}
  for path in [*FILES, *PROGRAMS]:
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.FunctionDef):
        documented = ast.get_docstring(node, clean=False) or ""
        lines = node.end_lineno - node.lineno + 1 - len(documented.splitlines())
        if lines > 60:
          found[f"{path.parent.name}/{path.name}: {node.name}"] = lines
  assert found.keys() == LONG.keys(), found


def test_only_commands_know_the_names_of_options():
  for path in FILES:
    if part(path) in ("commands", "data"):  # data names the options of another program, tfds
      continue
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.Constant) and isinstance(node.value, str):
        assert not re.search(r"(?<![\w-])--[a-z]\w+", node.value), f"{path}:{node.lineno}: {node.value}"


def test_no_file_name_stands_for_two_things():
  names = Counter(path.name for path in [*FILES, *PROGRAMS] if path.name[:2] != "__")
  assert [name for name, count in names.items() if count > 1] == []


def test_experiments_are_few_lines_and_no_library():
  lines = sum(len(path.read_text().splitlines()) for path in PROGRAMS)
  assert lines <= 1500
  folders = {path.relative_to(ROOT / "experiments").parts[0] for path in PROGRAMS}
  assert folders == {"__init__.py", "train_cifar.py", "train_for_minutes.py", "demo.py", "paper", "studies"}


def test_options_are_described_so_that_help_can_wrap_them():
  """In the docstring of their class: of strings below fields, and before a line that begins with no letter,
  ``--help`` keeps the line breaks."""
  paths = [ROOT / "ddim_jax/models/config.py", *(ROOT / "ddim_jax/commands").glob("*.py")]
  for path in [*paths, ROOT / "experiments/paper/__main__.py"]:
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, ast.ClassDef) and any("dataclass" in ast.unparse(d) for d in node.decorator_list):
        strings = [one for one in node.body[1:] if isinstance(one, ast.Expr)]
        assert not strings, f"{path}:{strings[0].lineno}"
      if isinstance(node, ast.ClassDef | ast.FunctionDef):
        told = re.split(r"\n(?:Args|Attributes):\n", ast.get_docstring(node) or "")
        for line in told[1].splitlines() if len(told) == 2 else []:
          assert not re.match(r" {4}[^a-zA-Z]", line), f"{path}: {node.name}: {line}"
