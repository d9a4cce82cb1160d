"""The package as it is installed: what the wheel holds is enough to load a model and draw."""

import os
import subprocess
import sys
import zipfile

import pytest

from tests.helpers import ROOT

DRAW = """
import sys
import ddim_jax
model = ddim_jax.load("fashion_mnist")
images = model.sample(2, steps=2)
assert images.shape == (2, 28, 28, 1) and images.dtype == "float32"
needed = {"tyro", "optax", "orbax", "PIL", "tqdm", "matplotlib", "tensorflow_datasets", "torch"}
assert not needed & set(sys.modules), needed & set(sys.modules)
print(ddim_jax.__file__)
"""
TRAIN = """
import numpy as np
import ddim_jax
from ddim_jax.runs import fit
images = np.random.default_rng(0).integers(0, 256, (32, 8, 8, 1), np.uint8)
unet = ddim_jax.UNet(channels=8, multipliers=(1,), blocks=1, attention=(), groups=4, out_channels=1)
model = fit("run", unet, images, steps=2, batch_size=8, warmup=0)
assert model.sample(3, steps=2).shape == (3, 8, 8, 1)
assert np.array_equal(ddim_jax.load("run").sample(3, steps=2), model.sample(3, steps=2))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
  """A folder with what the wheel holds."""
  pytest.importorskip("setuptools", reason="wheels are built by setuptools")
  folder = tmp_path_factory.mktemp("wheel")
  command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
  source = folder / "source"  # building leaves files behind
  tree = ("ddim_jax", "pyproject.toml", "README.md", "LICENSE")
  source.mkdir()
  for name in tree:
    (source / name).symlink_to(ROOT / name)
  subprocess.run([*command, "--wheel-dir", str(folder), str(source)], check=True)
  (wheel,) = folder.glob("*.whl")
  with zipfile.ZipFile(wheel) as archive:
    archive.extractall(folder / "site")
  return folder


@pytest.mark.slow
@pytest.mark.parametrize("script", [DRAW, TRAIN], ids=["draw", "train"])
def test_the_examples_run_from_the_wheel_alone(installed, tmp_path, script):
  environment = os.environ | {"PYTHONPATH": str(installed / "site")}
  done = subprocess.run(
    [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
  )
  assert done.returncode == 0, done.stderr
  if script is DRAW:
    assert done.stdout.strip().startswith(str(installed / "site"))


@pytest.mark.slow
def test_the_wheel_has_the_command_its_models_and_its_types(installed):
  site = installed / "site"
  (points,) = site.glob("*.dist-info/entry_points.txt")
  assert "ddim = ddim_jax.commands.main:main" in points.read_text()
  assert (site / "ddim_jax" / "py.typed").is_file()
  assert len(list((site / "ddim_jax" / "models").glob("*.safetensors"))) == 2
