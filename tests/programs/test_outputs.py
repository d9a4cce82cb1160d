import json

import numpy as np
import pytest
from PIL import Image

from ddim_jax.commands import outputs

SETTINGS = {"seed": 0, "levels": [9, 0]}


class Interrupt(Exception):
  """Stands for the machine going away."""


def counting_draw(fail_at=None):
  """A sampler whose image i is filled with i; records what it was asked for, and may fail."""
  asked = []

  def draw(indices):
    if len(asked) == fail_at:
      raise Interrupt
    asked.append(indices.tolist())
    return np.broadcast_to(indices.astype(np.uint8)[:, None, None, None], (len(indices), 4, 5, 3)).copy()

  return asked, draw


def check(images, num):
  assert images.shape == (num, 4, 5, 3)
  np.testing.assert_array_equal(images[:, 0, 0, 0], np.arange(num))


def test_npz_goes_on_where_it_was_interrupted(tmp_path):
  path = tmp_path / "new" / "x.npz"
  with pytest.raises(Interrupt):
    outputs.write_npz(path, 10, 4, counting_draw(fail_at=2)[1], SETTINGS, (4, 5, 3))
  assert not path.exists()
  asked, draw = counting_draw()
  outputs.write_npz(path, 10, 4, draw, SETTINGS, (4, 5, 3))
  assert asked == [[8, 9, 10, 11]]
  check(np.load(path)["arr_0"], 10)
  assert json.loads(str(np.load(path)["settings"])) == SETTINGS | {"num": 10, "S": 1}
  assert sorted(f.name for f in path.parent.iterdir()) == ["x.npz", "x.settings.json"]
  asked, draw = counting_draw()
  outputs.write_npz(path, 10, 4, draw, SETTINGS, (4, 5, 3))
  assert asked == []


def test_pngs_go_on_where_they_were_interrupted_with_another_batch_size(tmp_path):
  with pytest.raises(Interrupt):
    outputs.write_files(tmp_path / "x", 10, 4, counting_draw(fail_at=1)[1], SETTINGS)
  asked, draw = counting_draw()
  outputs.write_files(tmp_path / "x", 10, 2, draw, SETTINGS)
  assert asked == [[4, 5], [6, 7], [8, 9]]
  files = sorted((tmp_path / "x").glob("*.png"))
  assert [f.name for f in files] == [f"{i:06d}.png" for i in range(10)]
  check(np.stack([np.asarray(Image.open(f)) for f in files]), 10)


def test_other_settings_are_refused(tmp_path):
  outputs.write_files(tmp_path / "x", 2, 2, counting_draw()[1], SETTINGS)
  with pytest.raises(ValueError, match=r"begun with seed 0, not 1: choose another out"):
    outputs.write_files(tmp_path / "x", 2, 2, counting_draw()[1], SETTINGS | {"seed": 1})


OTHERS = {
  "another model": {"model_crc32": 2},
  "another number of steps": {"levels": [9, 4, 0]},
  "a condition": {"condition": [1.0]},
  "no seed": {"seed": None},
  "a longer list": {"levels": [9, 0, 0]},
}


@pytest.mark.parametrize("change", OTHERS)
@pytest.mark.parametrize("added", [True, False])
def test_no_images_of_two_kinds_come_together(change, added, tmp_path):
  """Whatever is said now and was not before, or the other way round."""
  first, second = SETTINGS, SETTINGS | OTHERS[change]
  first, second = (first, second) if added else (second, first)
  outputs.write_files(tmp_path / "x", 2, 2, counting_draw()[1], first)
  before = sorted(path.name for path in (tmp_path / "x").iterdir())
  with pytest.raises(ValueError, match=f"begun with {next(iter(OTHERS[change]))} .*: choose another out"):
    outputs.write_files(tmp_path / "x", 4, 2, counting_draw()[1], second)
  assert sorted(path.name for path in (tmp_path / "x").iterdir()) == before


def test_images_of_unknown_origin_are_refused(tmp_path):
  np.savez(tmp_path / "x.npz", np.zeros(3))
  with pytest.raises(ValueError, match="images without"):
    outputs.write_npz(tmp_path / "x.npz", 2, 2, counting_draw()[1], SETTINGS, (4, 5, 3))
  (tmp_path / "000000.png").write_bytes(b"")
  with pytest.raises(ValueError, match="images without"):
    outputs.write_files(tmp_path, 2, 2, counting_draw()[1], SETTINGS)
