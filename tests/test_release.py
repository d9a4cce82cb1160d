"""What a release needs: one version everywhere, metadata, and packages that the usual checks accept."""

import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib

import pytest
import yaml

import ddim_jax
from tests.helpers import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_one_version():
  assert re.search(
    rf"^version: {re.escape(ddim_jax.__version__)}$", (ROOT / "CITATION.cff").read_text(), re.M
  )
  assert f"## {ddim_jax.__version__}" in (ROOT / ".github" / "CHANGELOG.md").read_text()


def test_metadata_is_complete():
  assert {"description", "readme", "license", "keywords", "classifiers", "authors"} <= set(PROJECT)
  lowest = PROJECT["requires-python"].removeprefix(">=")
  assert f"Programming Language :: Python :: {lowest}" in PROJECT["classifiers"]


@pytest.mark.parametrize(
  "path", sorted([*(ROOT / ".github").rglob("*.yml"), ROOT / "CITATION.cff"]), ids=lambda path: path.name
)
def test_hosted_files_are_yaml(path):
  found = yaml.safe_load(path.read_text())
  if path.parent.name == "workflows":
    assert found["permissions"] == {"contents": "read"}
    assert all("timeout-minutes" in job for job in found["jobs"].values())
    for script in re.findall(r"run: (\.ci/\w+)", path.read_text()):
      assert (ROOT / script).exists()


@pytest.mark.slow
def test_packages_pass_the_usual_checks(tmp_path):
  """Source, and the wheel from it; without isolation, so that nothing is downloaded."""
  for name in ("build", "twine", "check_wheel_contents"):
    if importlib.util.find_spec(name) is None:
      pytest.skip(f"needs {name}: the extra release")
  tree = tmp_path / "source"
  tree.mkdir()
  for name in ("pyproject.toml", "README.md", "LICENSE"):
    shutil.copy(ROOT / name, tree)
  shutil.copytree(ROOT / "ddim_jax", tree / "ddim_jax", ignore=shutil.ignore_patterns("__pycache__"))
  run = lambda *words: subprocess.run([sys.executable, "-m", *words], check=True, cwd=tree)
  run("build", "--no-isolation", "--outdir", str(tmp_path / "dist"), ".")
  files = sorted(map(str, (tmp_path / "dist").iterdir()))
  assert [name.rsplit(".", 1)[1] for name in files] == ["whl", "gz"]
  run("twine", "check", "--strict", *files)
  run("check_wheel_contents", files[0])
