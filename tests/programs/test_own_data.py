"""Data of a user's own from files to files, as commands."""

import json

import numpy as np
import pytest
from PIL import Image

import ddim_jax


@pytest.mark.slow
def test_scans_of_16_bits_from_the_command_line(run_here, tmp_path):
  random, folder, workdir = np.random.default_rng(0), tmp_path / "scans", tmp_path / "runs" / "mine"
  folder.mkdir()
  rows = []
  for i in range(8):
    pixels = random.integers(0, 4096, (6, 10)).astype(np.uint16)
    Image.fromarray(pixels).save(folder / f"{i}.png")
    rows.append({"file_name": f"{i}.png", "kind": ["egg", "nut"][i % 2], "age": 20.0 + i, "place": [i, -i]})
  (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
  (folder / "broken.png").write_bytes(b"x")
  done = run_here(
    "ddim_jax", "train", folder, "--channels", 1, "--bits", 16, "--values", 0, 4095, "--image-size", "8x12",
    "--fit", "pad", "--label-column", "kind", "--condition-columns", "age", "place", "--skip-broken",
    "--conditional", "--workdir", workdir, "--steps", 1, "--batch-size", 4, "--sample-every", 0,
    "--width", 4, "--multipliers", 1, "--blocks", 1, "--groups", 2, "--attention", 8,
  )  # fmt: skip
  for words in (
    "8 examples of 8x12x1, uint16", "6x10 (8)", "I;16 (8)", "2: egg (4), nut (4)", "conditions  3 numbers",
    "0 to 4095 (uint16) become -1 to 1", "skipped     1: no row in metadata.jsonl (broken.png)",
  ):  # fmt: skip
    assert words in done.stdout
  model = ddim_jax.load(workdir)
  assert (model.shape, model.classes, model.condition_size) == ((8, 12, 1), ("egg", "nut"), 3)
  # Ages are 20 to 27, and standardised: mean 23.5, variance (8^2 - 1) / 12.
  np.testing.assert_allclose(model.conditions.offset, (23.5, 3.5, -3.5))
  np.testing.assert_allclose(model.conditions.scale, (63 / 12) ** 0.5)
  drawn = ("--num", 2, "--steps", 2, "--label", "nut", "--condition", 25, 1, -1, "--guidance", 2)
  run_here("ddim_jax", "sample", workdir, *drawn, "--out", tmp_path / "drawn.npz")
  run_here("ddim_jax", "sample", workdir, *drawn, "--out", tmp_path / "drawn")
  values = np.load(tmp_path / "drawn.npz")["arr_0"]
  assert (values.shape, values.dtype, values.max() > 255) == ((2, 8, 12, 1), np.uint16, True)
  assert values.max() <= 4095
  for i in range(2):
    with Image.open(tmp_path / "drawn" / f"{i:06d}.tif") as image:
      np.testing.assert_array_equal(np.asarray(image), values[i, ..., 0])
