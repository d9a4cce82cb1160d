"""The quick tests pass with 64 bits allowed, too; here a few of each part, in a process of its own."""

import os
import subprocess
import sys

import pytest

from tests.helpers import ROOT

CHOSEN = [
  "tests/core/test_checks.py",
  "tests/core/test_parameterisation.py",
  "tests/core/test_process.py",
  "tests/core/test_parallel.py::test_a_window_of_one_step_is_sample",
  "tests/cpu/test_winograd.py::test_equals_the_definition",
  "tests/models/test_model.py::test_the_denoiser_works_under_jit_vmap_and_grad",
  "tests/runs/test_faults.py::test_a_second_run_in_the_folder_is_refused_and_changes_nothing",
  "tests/unet/test_unet.py::test_no_label_is_the_null_class",
]


@pytest.mark.slow
def test_some_of_each_part_pass_with_64_bits(tmp_path):
  """All do that are not slow: ``JAX_ENABLE_X64=1 python -m pytest -m "not slow and not bench"``."""
  options = [
    "-q",
    "-p",
    "no:cacheprovider",
    "-p",
    "no:xdist",
    "-m",
    "not slow and not bench",
    "--durations=0",
  ]
  alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
  done = subprocess.run(
    [sys.executable, "-m", "pytest", *options, "--basetemp", str(tmp_path / "x64"), *CHOSEN],
    cwd=ROOT, env=alone | {"JAX_ENABLE_X64": "1"}, capture_output=True, text=True, check=False,
  )  # fmt: skip
  assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
