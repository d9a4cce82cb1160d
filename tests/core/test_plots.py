import numpy as np
import pytest
from PIL import Image

from ddim_jax import plots
from tests.helpers import likeness

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


@pytest.mark.parametrize("suffix", [".png", ".gif", ".webp", ".jpg", ".tif"])
def test_a_picture_keeps_how_it_was_made(tmp_path, suffix):
  """More than fits into one block of a GIF's comment; and what other programs wrote is no matter."""
  settings = {"seed": 3, "S": 400, "eta": 0.5, "levels": list(range(400, -1, -1))}
  path, picture = tmp_path / f"x{suffix}", np.full((480, 480, 3), 9, np.uint8)
  plots.save_png(path, picture, settings)
  assert plots.read_settings(path) == settings
  if suffix in (".gif", ".webp"):
    plots.save_animation(path, np.stack([picture, picture + 60]), settings=settings)
    assert plots.read_settings(path) == settings
  Image.new("L", (3, 3)).save(path)
  assert plots.read_settings(path) is None


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


def test_channels_that_no_file_holds_stand_side_by_side():
  images = np.arange(2 * 3 * 4 * 5, dtype=np.uint8).reshape(2, 3, 4, 5)
  picture = plots.grid(images, columns=1, pad=0)
  assert picture.shape == (6, 20, 1)
  for i in range(2):
    for c in range(5):
      np.testing.assert_array_equal(picture[3 * i : 3 * i + 3, 4 * c : 4 * c + 4, 0], images[i, ..., c])


@pytest.mark.parametrize("channels", [2, 4])
def test_alpha_shows_white(channels):
  images = np.full((1, 3, 3, channels), 100, np.uint8)
  for alpha, expected in ((0, 255), (255, 100), (51, 224)):  # a fifth of 100 and four of 255
    images[..., -1] = alpha
    picture = plots.grid(images)
    assert picture.shape == (3, 3, channels - 1)
    assert np.all(picture == expected)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("name", ["x.png", "x.PNG", "x.webp", "x.jpg", "x.JPEG", "x.bmp"])
def test_the_ending_decides_in_any_case(tmp_path, name, channels):
  plots.save_png(tmp_path / name, np.full((480, 480, channels), 255, np.uint8))
  with Image.open(tmp_path / name) as image:
    expected = {"jpg": "JPEG", "jpeg": "JPEG"}.get(name[2:].lower(), name[2:].upper())
    assert image.format == expected
    assert np.all(np.asarray(image) == 255)


@pytest.mark.parametrize("name", ["", "x", "x.txt", "folder.png"])
def test_names_that_no_picture_can_have_are_refused_before_the_work(tmp_path, name):
  (tmp_path / "folder.png").mkdir()
  path = tmp_path / name if name else name
  with pytest.raises(ValueError, match=r"must end in \.png, .* got|is a folder"):
    plots.check_name(path)
  if name:
    with pytest.raises(ValueError, match=r"must end in|is a folder"), plots.figure(path, 1, 1):
      pytest.fail("the work began")
    with pytest.raises(ValueError, match=r"must end in|is a folder"):
      plots.save_animation(path, np.zeros((2, 4, 4, 3), np.uint8))


def test_pictures_of_other_kinds_are_refused():
  for picture in (np.zeros((4, 4, 5), np.uint8), np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8)):
    with pytest.raises(ValueError, match=r"must be u8\[H, W, 1 to 4\]"):
      plots.to_image(picture)


def test_a_table_takes_any_channels():
  blocks = [[np.full((20, 30, channels), 7, np.uint8)] for channels in (1, 3, 4)]
  assert plots.table(blocks, ["a", "b", "c"], ["x"]).shape[2] == 3


def ink(picture, area):
  """How much darker than paper an area of a picture is."""
  return float((255.0 - picture[area]).sum())


def test_labels_stand_above_their_columns_and_beside_their_rows():
  white = np.full((6, 28, 28, 1), 255, np.uint8)  # so that all ink is of labels
  page = plots.labelled(white, ["image 0", "predicted"], ["level 801", "level 1", "level 0"])
  cell, font = 28 * 6 + 2, 14
  assert page.shape[2] == 3
  above, beside = page.shape[0] - 2 * cell, page.shape[1] - 3 * cell
  for i, text in enumerate(("level 801", "level 1", "level 0")):
    here = page[:above, beside + i * cell : beside + (i + 1) * cell]
    assert likeness(here, text, font) > 0.9
    assert likeness(here, "weight 0.5", font) < 0.9
  for i, text in enumerate(("image 0", "predicted")):
    here = page[above + i * cell : above + (i + 1) * cell, :beside]
    assert likeness(here, text, font) > 0.9
    assert likeness(here, "original", font) < 0.9
  assert ink(page, np.s_[above:, beside:]) == 0


def test_labels_leave_the_pictures_as_they_are():
  images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 1), np.uint8)
  page = plots.labelled(images, columns=["a", "b", "c"])
  cells = page[-2 * 162 :].reshape(2, 162, 3, 162, 3).swapaxes(1, 2).reshape(6, 162, 162, 3)
  for cell, image in zip(cells, images, strict=False):
    np.testing.assert_array_equal(cell[:160:20, :160:20], np.repeat(image, 3, axis=-1))
  assert np.all(cells[5] == 255)
  np.testing.assert_array_equal(plots.labelled(images), plots.grid(images))


def test_a_label_wider_than_its_column_is_cut():
  white = np.full((2, 240, 240, 1), 255, np.uint8)
  page = plots.labelled(white, columns=["a very long name, even for a class", "cup"])
  assert likeness(page[:40, :240], "a very", size=20) > 0.9
  assert ink(page, np.s_[:, 240:242]) == 0
  assert likeness(page[:40, 242:], "cup", size=20) > 0.9


def test_as_many_labels_as_rows():
  with pytest.raises(ValueError, match="rows must label each of 2 rows of 3 images, got 1 labels"):
    plots.labelled(np.zeros((6, 4, 4, 1), np.uint8), ["one"], ["a", "b", "c"])
