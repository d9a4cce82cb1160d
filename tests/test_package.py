"""What the package promises as a whole."""

import ast
import os
import re
import subprocess
import sys

import pytest

import ddim_jax
from tests.helpers import ROOT, printed

HEAVY = {"tensorflow", "torch", "matplotlib", "tensorflow_datasets", "orbax", "optax", "PIL", "sklearn"}


def test_the_import_is_light():
  code = f"import ddim_jax, sys; sys.exit(', '.join(sorted({HEAVY} & set(sys.modules))) or 0)"
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
  assert done.returncode == 0, done.stderr


def test_public_names():
  names = """Schedule linear_schedule cosine_schedule from_betas from_alpha_bar timesteps add_noise
    Prediction Parameterisation EPS X0 V as_denoiser clip_x0 dynamic_threshold guide Solver ddim ddpm
    ddim_step sample invert slerp interpolate UNet"""
  assert set(names.split()) <= set(ddim_jax.__all__)
  for name in ddim_jax.__all__:
    assert getattr(ddim_jax, name) is not None
  for spacing in ("uniform", "quadratic", "leading", "trailing", "linspace", "explicit"):
    assert callable(getattr(ddim_jax.timesteps, spacing))


def test_public_functions_have_docstrings():
  for path in [*(ROOT / "ddim_jax").rglob("*.py"), *(ROOT / "experiments").glob("*.py")]:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), path
    for node in tree.body:
      if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
        assert ast.get_docstring(node), f"{path}: {node.name}"


def test_nothing_unpickles_and_nothing_is_extracted():
  forbidden = r"pickle\.loads?\b|Unpickler\b|allow_pickle|extractall|\bassert\b|except:"
  for path in [*(ROOT / "ddim_jax").rglob("*.py"), *(ROOT / "experiments").rglob("*.py")]:
    source = path.read_text()
    found = re.findall(forbidden, source)
    assert not found, f"{path}: {found}"
    for arguments in re.findall(r"torch\.load\(([^)]*)\)", source):
      assert "weights_only=True" in arguments, f"{path}: torch.load({arguments})"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="cores are counted another way here")
@pytest.mark.parametrize(
  ("batch_size", "options", "expected"),
  [
    (0, {}, "every core"),
    (1, {}, 1),
    (128, {"XLA_FLAGS": "--xla_force_host_platform_device_count=3"}, 3),
    (128, {"JAX_NUM_CPU_DEVICES": "5"}, 5),
  ],
)
def test_a_program_on_a_cpu_has_a_device_a_core_unless_told_otherwise(batch_size, options, expected):
  code = f"""
import jax
from ddim_jax.cpu import devices
devices.use_every_core({batch_size})
print(jax.device_count())
"""
  environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | options
  found = printed(code, environment)
  cores = min(8, len(os.sched_getaffinity(0)))
  assert int(found) == (cores if expected == "every core" else expected)
