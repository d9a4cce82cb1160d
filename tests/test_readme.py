"""What the README says is true."""

import re

import jax
import numpy as np
import pytest

import ddim_jax
from ddim_jax.commands.main import COMMANDS
from tests.helpers import ROOT

TEXT = (ROOT / "README.md").read_text()
LIBRARY, WEIGHTS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.slow
def test_the_library_example_runs_and_compiles_once():
  names = {}
  exec(compile(LIBRARY, "README.md", "exec"), names)  # it is our own file
  for images in (names["images"], names["other"]):
    assert images.shape == (8, 16, 16, 3)
    assert images.dtype == np.float32
    assert np.all(np.abs(images) <= 1)
  assert isinstance(names["images"], jax.Array)
  assert names["draw"]._cache_size() == 1


def test_weights_from_elsewhere_run_and_go_back(tmp_path, monkeypatch):
  """On a small folder of diffusers' own making, of the name that the example gives."""
  diffusers = pytest.importorskip("diffusers")
  network = diffusers.UNet2DModel(
    8, 3, 3, norm_num_groups=8, block_out_channels=(8, 16), layers_per_block=1,
    down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
  )  # fmt: skip
  diffusers.DDIMPipeline(network, diffusers.DDIMScheduler()).save_pretrained(tmp_path / "ddpm-cifar10-32")
  monkeypatch.chdir(tmp_path)
  names = {}
  exec(compile(WEIGHTS, "README.md", "exec"), names)
  pretrained = names["pretrained"]
  x_T = ddim_jax.initial_noise(jax.random.key(0), (1, 8, 8, 3))
  draw = lambda ts: ddim_jax.sample(
    jax.random.key(0), names["denoise"], pretrained.schedule, x_T, ts, solver=pretrained.solver
  )
  assert np.abs(jax.jit(draw)(names["ts"])[0]).max() <= 1
  weights = diffusers.DDIMPipeline.from_pretrained("mine").unet.state_dict()
  for name, tensor in network.state_dict().items():
    np.testing.assert_array_equal(tensor.numpy(), weights[name].numpy(), err_msg=name)


def test_pictures_files_and_programs_exist():
  for picture in re.findall(r"!\[.*?\]\((.*?)\)", TEXT):
    assert (ROOT / picture).is_file(), picture
  for program in re.findall(r"python -m (experiments[\w.]+\w)", TEXT):
    path = program.replace(".", "/")
    assert any((ROOT / name).is_file() for name in (f"{path}.py", f"{path}/__main__.py")), program
  assert set(re.findall(r"^ddim (\w+)", TEXT, re.MULTILINE)) <= set(COMMANDS)
  tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
  for test in re.findall(r"`(test_\w+)`", TEXT):
    assert f"def {test}(" in tests, test
  for path in re.findall(r"`(\w+\.py)`", TEXT):
    assert (ROOT / "ddim_jax" / path).is_file(), path
