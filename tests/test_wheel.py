"""The package as it is installed: the README's examples run from the wheel, in an environment of its own."""

import os
import site
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
def python(tmp_path_factory):
  """An environment with the wheel, and below it the packages installed here; nothing is downloaded."""
  pytest.importorskip("setuptools", reason="wheels are built by setuptools")
  folder = tmp_path_factory.mktemp("wheel")
  source = folder / "source"  # building leaves files behind
  source.mkdir()
  for name in ("ddim_jax", "pyproject.toml", "README.md", "LICENSE"):
    (source / name).symlink_to(ROOT / name)
  pip = [sys.executable, "-m", "pip"]
  build = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(source)]
  subprocess.run([*pip, *build], check=True)
  (wheel,) = folder.glob("*.whl")
  venv.create(folder / "venv", with_pip=False)
  made = folder / "venv" / "bin" / "python"
  install = ["install", "--quiet", "--no-deps", "--no-index", str(wheel)]
  subprocess.run([*pip, "--python", str(made), *install], check=True)
  # Folders named in a .pth file are searched last, and an editable install in them has no effect.
  place = sysconfig.get_path("purelib", vars={"base": str(folder / "venv")})
  with open(os.path.join(place, "here.pth"), "w") as file:
    file.write("\n".join(site.getsitepackages()))
  return made


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_the_examples_of_the_readme_run_in_an_empty_folder(python, tmp_path, number):
  code = EXAMPLES[number].small() + CHECKS.get(number, "") + "\nprint(ddim_jax.__file__)"
  environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
  done = subprocess.run(
    [str(python), "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.splitlines()[-1].startswith(str(python.parent.parent))


@pytest.mark.slow
def test_the_wheel_has_the_command_its_models_and_its_types(python):
  place = Path(sysconfig.get_path("purelib", vars={"base": str(python.parent.parent)}))
  assert (python.parent / "ddim").is_file()
  assert (place / "ddim_jax" / "py.typed").is_file()
  assert len(list((place / "ddim_jax" / "models").glob("*.safetensors"))) == 2
