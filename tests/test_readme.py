"""What the README shows runs: its examples, its commands, and the examples again from a wheel."""

import os
import site
import subprocess
import sys
import sysconfig
import venv

import jax
import numpy as np
import PIL.Image
import pytest

from tests import pages
from tests.helpers import ROOT

EXAMPLES = pages.blocks(pages.README, "python")


def test_it_is_short():
  assert len(pages.README.read_text().splitlines()) <= 150


@pytest.mark.slow
def test_its_examples_run(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert len(EXAMPLES) == 2
  names = [{}, {}]
  with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # as for a user
    for block, kept in zip(EXAMPLES, names, strict=True):
      exec(compile(block.small(), "README.md", "exec"), kept)  # it is our own file
  images = names[0]["images"]
  assert (images.shape, images.dtype) == ((64, 28, 28, 1), np.float32)
  assert np.abs(images).max() <= 1
  model = names[1]["model"]
  assert (model.step, model.shape, len(model.classes)) == (3, (8, 8, 1), 10)
  assert names[1]["samples"].shape == (30, 8, 8, 1)
  with PIL.Image.open("digits.png") as picture:
    assert picture.width >= 480


@pytest.mark.slow
def test_its_commands_run(tmp_path, monkeypatch, run_here):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "photos").mkdir()
  rng = np.random.default_rng(0)
  for i in range(8):
    PIL.Image.fromarray(rng.integers(0, 256, (12, 10, 3), np.uint8)).save(tmp_path / "photos" / f"{i}.png")
  commands = [words for block in pages.blocks(pages.README, "") for words in pages.lines(block.small())]
  commands = [words for words in commands if words[0] == "ddim"]
  assert len(commands) == 3
  for _, *argv in commands:
    run_here("ddim_jax", *argv)
  for made in ("sample.png", "runs/photos/checkpoints/1", "runs/photos/compare.png"):
    assert (tmp_path / made).exists(), made


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
@pytest.mark.parametrize("block", EXAMPLES, ids=["draw", "train"])
def test_its_examples_run_from_a_wheel_in_an_empty_folder(python, tmp_path, block):
  code = block.small() + "\nprint(ddim_jax.__file__)"
  environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
  done = subprocess.run(
    [str(python), "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
  )
  assert done.returncode == 0, done.stderr
  assert done.stdout.splitlines()[-1].startswith(str(python.parent.parent))
