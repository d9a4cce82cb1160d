import numpy as np
import pytest
from PIL import Image

from ddim_jax import data, plots
from tests.data import corpus


@pytest.fixture
def folder(tmp_path):
  good = corpus.good()
  for name in ("cat/rgb.png", "cat/wide.png", "cat/animated.gif", "dog/palette.png", "dog/progressive.JPEG"):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(good[path.name][0])
  Image.fromarray(corpus.RGB[:6]).save(tmp_path / "dog" / "short.png")
  (tmp_path / "dog" / "broken.png").write_bytes(b"x")
  (tmp_path / "dog" / "broken too.png").write_bytes(b"y")
  (tmp_path / "dog" / ".hidden.png").write_bytes(b"")
  return tmp_path


def test_a_folder_is_said_and_drawn(folder, tmp_path_factory):
  report = data.inspect(folder)
  assert (report.number, report.classes) == (6, {"cat": 3, "dog": 3})
  assert report.sizes == {(12, 20): 5, (6, 20): 1}
  assert report.modes == {"RGB": 2, "I;16": 1, "P": 2, "L": 1}
  assert report.deep == (corpus.WIDE.min(), corpus.WIDE.max())
  assert report.frames == 1
  assert {reason for _, reason in report.skipped} >= {"hidden"}
  text = str(report)
  for words in (
    "6 examples of 64x64x3, uint8", "12x20 (5), 6x20 (1)", "RGB (2)", "I;16 (1)",
    "files of more than 8 bits hold", "1 have several frames", "0 to 255 (uint8) become -1 to 1",
    "2: cat (3), dog (3)", "1: hidden (dog/.hidden.png)", "2: it is no picture",
    "(dog/broken too.png, dog/broken.png)",
  ):  # fmt: skip
    assert words in text
  plots.save_png(tmp_path_factory.mktemp("sheet") / "sheet.png", report.sheet)
  assert report.sheet.shape[2] == 3
  np.testing.assert_array_equal(data.inspect(folder).sheet, report.sheet)


def test_options_are_those_of_training(folder):
  report = data.inspect(folder, image_size=(8, 16), fit="crop", channels=1)
  assert report.shape == (8, 16, 1)
  with pytest.raises(ValueError, match=r"broken too\.png cannot be used"):
    data.inspect(folder, skip_broken=False)


@pytest.mark.parametrize(
  ("array", "values", "text"),
  [
    (np.arange(90, dtype=np.uint16).reshape(10, 3, 3) * 45, (0, 4095),
     "values      0 to 4005; 0 to 4095 (uint16) become -1 to 1"),
    (np.linspace(0, 1, 40, dtype=np.float32).reshape(10, 4), "standardise",
     "values      0 to 1; mean [0.461538 .. 0.538462] and deviation 0.294593 (float32) become 0 and 1"),
    (np.zeros((5000, 2, 2, 5), np.uint8), None, "values      0 to 0, in 4,096 of them"),
  ],
)  # fmt: skip
def test_an_array_is_said_as_it_is_scaled(tmp_path, array, values, text):
  np.save(tmp_path / "x.npy", array)
  for what in (array, tmp_path / "x.npy"):
    report = data.inspect(what, values=values)
    assert text in str(report)
    assert (report.sheet is None) == (array.ndim == 2)
  source = data.in_memory("mine", array, values=values, conditions=np.ones((len(array), 3)))
  assert "conditions  3 numbers an example" in str(data.inspect(source))


def test_what_has_no_limits_is_drawn_by_its_deviations():
  array = np.random.default_rng(0).normal(5, 2, (9, 4, 4, 3)).astype(np.float32)
  scaling = data.in_memory("x", array, values="standardise").scaling
  middle, high = np.array(scaling.offset), np.array(scaling.offset) + 3 * np.array(scaling.scale)
  values = np.stack([middle, high, high + 1]).astype(np.float32).reshape(3, 1, 1, 3)
  assert np.abs(scaling.to_bytes(scaling.to_data(values))[:, 0, 0, 0] - [127.5, 255.0, 255.0]).max() <= 0.5
  with pytest.raises(ValueError, match="a contact sheet is of images"):
    data.contact_sheet(data.in_memory("x", np.zeros((4, 3), np.float32), values=(-1, 1)))


def test_a_prepared_data_set_is_counted_by_class(data_dir):
  report = data.inspect(data.load_builtin("digits", "train", data_dir))
  assert sum(report.classes.values()) == report.number == 1797
  assert (min(report.classes.values()), max(report.classes.values())) == (174, 183)  # scikit-learn's counts
