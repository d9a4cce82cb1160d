"""The packages of a release pass the usual checks, and the README's examples run where they are installed.

Built once, without isolation and index, so that nothing is downloaded.
"""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from tests import pages
from tests.helpers import ROOT

EXAMPLES = pages.blocks(pages.README, "python")
CHECKS = {
  0: """
import sys
import numpy as np
needed = {"tyro", "optax", "orbax", "PIL", "tqdm", "matplotlib", "tensorflow_datasets", "torch"}
assert not needed & set(sys.modules), needed & set(sys.modules)
assert images.shape == (64, 28, 28, 1) and images.dtype == np.float32 and abs(images).max() <= 1
""",
  1: """
import PIL.Image
assert (model.step, model.shape, len(model.classes)) == (3, (8, 8, 1), 10)
assert samples.shape == (30, 8, 8, 1)
assert PIL.Image.open("digits.png").width >= 480
assert (ddim_jax.load("runs/first").sample(2, steps=2) == model.sample(2, steps=2)).all()
""",
}
"""What is true when an example of this number has run."""


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
  """Ending -> file: the source, and the wheel built from it; the wheel alone where nothing can build both."""
  pytest.importorskip("setuptools", reason="wheels are built by setuptools")
  folder = tmp_path_factory.mktemp("packages")
  source, dist = folder / "source", folder / "dist"  # building leaves files behind
  source.mkdir()
  for name in ("pyproject.toml", "README.md", "LICENSE"):
    shutil.copy(ROOT / name, source)
  shutil.copytree(ROOT / "ddim_jax", source / "ddim_jax", ignore=shutil.ignore_patterns("__pycache__"))
  build = ["build", "--no-isolation", "--outdir", str(dist), "."]
  if not any(found.name == "build" for found in importlib.metadata.distributions()):  # not the folder build
    build = ["pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(dist), "."]
  subprocess.run([sys.executable, "-m", *build], check=True, cwd=source)
  return {path.suffix: path for path in dist.iterdir()}


def installed(package, folder):
  """The Python of an environment with a package, and below it the packages installed here."""
  venv.create(folder, with_pip=False)
  made = folder / "bin" / "python"
  # Folders named in a .pth file are searched last, and an editable install in them has no effect.
  place = sysconfig.get_path("purelib", vars={"base": str(folder)})
  with open(os.path.join(place, "here.pth"), "w") as file:
    file.write("\n".join(path for path in sys.path if Path(path).name == "site-packages"))
  pip = [sys.executable, "-m", "pip", "--python", str(made), "install", "--quiet"]
  subprocess.run([*pip, "--no-deps", "--no-index", "--no-build-isolation", str(package)], check=True)
  return made


@pytest.fixture(scope="module")
def python(packages, tmp_path_factory):
  return installed(packages[".whl"], tmp_path_factory.mktemp("wheel") / "venv")


def runs(python, code, folder):
  """Runs a program there, and checks that it is the installed package that ran."""
  environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
  command = [str(python), "-c", f"{code}\nprint(ddim_jax.__file__)"]
  done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stderr
  assert done.stdout.splitlines()[-1].startswith(str(python.parent.parent))


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_the_examples_of_the_readme_run_in_an_empty_folder(python, tmp_path, number):
  runs(python, EXAMPLES[number].small() + CHECKS.get(number, ""), tmp_path)


@pytest.mark.slow
def test_the_first_example_runs_where_the_source_was_installed(packages, tmp_path):
  if ".gz" not in packages:
    pytest.skip("needs build: the extra release")
  made = installed(packages[".gz"], tmp_path / "venv")
  runs(made, EXAMPLES[0].small() + CHECKS[0], tmp_path)


@pytest.mark.slow
def test_the_usual_checks_take_the_packages(packages):
  for name in ("twine", "check_wheel_contents"):
    pytest.importorskip(name, reason="needs the extra release")
  assert set(packages) == {".whl", ".gz"}
  run = lambda *words: subprocess.run([sys.executable, "-m", *map(str, words)], check=True)
  run("twine", "check", "--strict", *packages.values())
  run("check_wheel_contents", packages[".whl"])


@pytest.mark.slow
def test_the_wheel_has_the_command_its_models_and_its_types(python):
  place = Path(sysconfig.get_path("purelib", vars={"base": str(python.parent.parent)}))
  assert (python.parent / "ddim").is_file()
  assert (place / "ddim_jax" / "py.typed").is_file()
  assert len(list((place / "ddim_jax" / "models").glob("*.safetensors"))) == 3
