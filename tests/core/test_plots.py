import numpy as np
import pytest
from PIL import Image

from ddim_jax import plots

IMAGES = np.arange(5 * 2 * 3, dtype=np.uint8).reshape(5, 2, 3, 1)


def test_grid_places_every_image():
  picture = plots.grid(IMAGES, columns=3, pad=1)
  assert picture.shape == (2 * 3 - 1, 3 * 4 - 1, 1)
  for i in range(5):
    row, column = divmod(i, 3)
    np.testing.assert_array_equal(picture[row * 3 : row * 3 + 2, column * 4 : column * 4 + 3], IMAGES[i])
  assert np.all(picture[2] == 255)
  assert np.all(picture[3:, 8:] == 255)


def test_grid_is_as_square_as_it_gets():
  assert plots.grid(IMAGES, pad=0).shape == (4, 9, 1)


@pytest.mark.parametrize(
  ("images", "columns"), [(IMAGES.astype(float), None), (IMAGES[0], None), (IMAGES[:0], None), (IMAGES, 0)]
)
def test_grid_refuses(images, columns):
  with pytest.raises(ValueError, match="must be"):
    plots.grid(images, columns)


def test_enlarge_repeats_pixels():
  big = plots.enlarge(IMAGES[0], 7)
  assert big.shape == (6, 9, 1)
  np.testing.assert_array_equal(big[::3, ::3], IMAGES[0])
  assert plots.enlarge(big, 5) is not None
  assert plots.enlarge(big, 5).shape == big.shape


@pytest.mark.parametrize("channels", [1, 3])
def test_png_holds_the_pixels(tmp_path, channels):
  picture = np.random.default_rng(0).integers(0, 256, (480, 480, channels), np.uint8)
  plots.save_png(tmp_path / "new" / "x.png", picture)
  with Image.open(tmp_path / "new" / "x.png") as image:
    np.testing.assert_array_equal(np.asarray(image).reshape(picture.shape), picture)


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_animation_has_every_frame(tmp_path, suffix):
  frames = np.repeat(np.arange(6, dtype=np.uint8) * 40, 16 * 16 * 3).reshape(6, 16, 16, 3)
  plots.save_animation(tmp_path / f"x{suffix}", frames)
  with Image.open(tmp_path / f"x{suffix}") as animation:
    assert animation.n_frames == 6
    for i in range(6):
      animation.seek(i)
      assert abs(int(np.asarray(animation.convert("RGB"))[5, 5, 0]) - 40 * i) <= 2


def test_table_places_blocks_below_and_beside_their_labels():
  block = np.full((20, 30, 1), 7, np.uint8)
  page = plots.table([[block, block]], ["row"], ["a", "b"])
  assert page.shape[2] == 3
  assert np.sum(np.all(page == 7, axis=-1)) == 2 * 20 * 30


def test_curve_is_a_picture(tmp_path):
  plots.save_curve(tmp_path / "c.png", np.arange(500), 1 / (1 + np.arange(500)), "loss", "loss")
  with Image.open(tmp_path / "c.png") as image:
    assert image.size == (840, 480)
    assert len(np.unique(np.asarray(image.convert("L")))) > 20


def test_lines_side_by_side(tmp_path):
  lines = {"a": ([5, 10], [0.1, 0.01]), "b": ([10], [0.5])}
  sizes = []
  for panels in ({"one": lines}, {"one": lines, "two": lines}):
    plots.save_lines(tmp_path / "new" / "lines.png", panels, "evaluations", "error")
    with Image.open(tmp_path / "new" / "lines.png") as image:
      assert len(np.unique(np.asarray(image.convert("L")))) > 10
      sizes.append(image.size)
  assert sizes[1] == (2 * sizes[0][0], sizes[0][1])
