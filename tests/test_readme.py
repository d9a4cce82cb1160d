"""What the README says is true."""

import re

import jax
import numpy as np

from tests.conftest import ROOT

TEXT = (ROOT / "README.md").read_text()


def test_the_library_example_runs_and_compiles_once():
  (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
  names = {}
  exec(compile(code, "README.md", "exec"), names)  # it is our own file
  for images in (names["images"], names["other"]):
    assert images.shape == (8, 16, 16, 3)
    assert images.dtype == np.float32
    assert np.all(np.abs(images) <= 1)
  assert isinstance(names["images"], jax.Array)
  assert names["draw"]._cache_size() == 1


def test_pictures_files_and_programs_exist():
  for picture in re.findall(r"!\[.*?\]\((.*?)\)", TEXT):
    assert (ROOT / picture).is_file(), picture
  for program in re.findall(r"python -m experiments\.(\w+)", TEXT):
    assert (ROOT / "experiments" / f"{program}.py").is_file(), program
  tests = "".join(path.read_text() for path in (ROOT / "tests").glob("test_*.py"))
  for test in re.findall(r"`(test_\w+)`", TEXT):
    assert f"def {test}(" in tests, test
  for path in re.findall(r"`(\w+\.py)`", TEXT):
    assert (ROOT / "ddim_jax" / path).is_file(), path
