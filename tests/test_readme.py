"""The README is short, and its commands run; its examples are those of test_wheel.py."""

import numpy as np
import PIL.Image
import pytest

from tests import pages


def test_it_is_short():
  assert len(pages.README.read_text().splitlines()) <= 150


@pytest.mark.slow
def test_its_commands_run(tmp_path, monkeypatch, run_here):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "photos").mkdir()
  rng = np.random.default_rng(0)
  for i in range(8):
    PIL.Image.fromarray(rng.integers(0, 256, (12, 10, 3), np.uint8)).save(tmp_path / "photos" / f"{i}.png")
  commands = [words for block in pages.blocks(pages.README, "") for words in pages.lines(block.small())]
  commands = [words for words in commands if words[0] == "ddim"]
  assert commands
  for _, *argv in commands:
    run_here("ddim_jax", *argv)
  for made in ("sample.png", "runs/photos/checkpoints/1", "runs/photos/compare.png"):
    assert (tmp_path / made).exists(), made
