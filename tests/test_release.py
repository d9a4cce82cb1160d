"""What a release needs: one version everywhere, and metadata. Its packages are those of test_wheel.py."""

import re
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
