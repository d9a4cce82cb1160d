"""The program that trains for some minutes, on a tiny network."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

import ddim_jax

TINY = (
  "--width", 4, "--groups", 2, "--multipliers", 1, "--blocks", 1, "--attention", "--levels", 12,
  "--batch-size", 8, "--eval-num", 12,
)  # fmt: skip


@pytest.mark.slow
def test_a_run_is_exported_measured_and_drawn_and_its_file_begins_the_next(run_here, tmp_path):
  first, second = tmp_path / "first", tmp_path / "second"
  begin = ("digits", *TINY, "--conditional", "--dtype", "bfloat16", "--steps", "3")
  run_here("experiments.train_for_minutes", *begin, "--workdir", str(first))
  model = ddim_jax.load(first / "model.safetensors")
  assert (model.step, model.config.network.dtype, len(model.classes)) == (3, "float32", 10)
  about = json.loads((first / "about.json").read_text())
  assert about["images"] == 3 * 8 and about["began_with"] is None
  ((measured,),) = (
    row.items() for row in json.loads((first / "evaluation.json").read_text())["rows"].values()
  )
  assert measured[0] == "10"  # of 12 levels
  assert measured[1]["N"] == 12 and np.isfinite(measured[1]["frechet"])
  with Image.open(first / "samples.png") as picture:
    assert 0 < picture.width < picture.height < 1.1 * picture.width  # a column for each class, ten of each
  file = str(first / "model.safetensors")
  done = run_here(
    "experiments.train_for_minutes",
    *begin,
    "--workdir",
    str(second),
    "--from",
    file,
    "--learning-rate",
    "1e-12",
  )
  assert "FD-classifier (digits)" in done.stdout + done.stderr
  assert json.loads((second / "about.json").read_text())["began_with"] == file
  again = ddim_jax.load(second / "model.safetensors")
  close = lambda a, b: np.testing.assert_allclose(b, a, atol=1e-3)
  jax.tree.map(close, model.params, again.params)  # it began with them and hardly moved
