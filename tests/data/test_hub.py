import os

import numpy as np
import pytest
from PIL import Image

from ddim_jax import data
from tests.data import corpus

datasets = pytest.importorskip("datasets", reason="needs the hf extra")
KINDS = ("rgb.png", "wide.png", "la.png", "smooth.jpg", "palette.gif", "rgb.bmp")


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
  """A place for what the library prepares, in place of the one in the home."""
  monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub")


@pytest.fixture
def saved(tmp_path):
  """Pictures of many kinds as bytes, with names, numbers and vectors, in two splits."""
  rows = {
    "image": [{"bytes": corpus.good()[name][0], "path": name} for name in KINDS],
    "species": ["owl", "hen", "owl", "hen", "owl", "cat"],
    "digit": [10, 9, 9, 2, 2, 2],
    "age": [float(i) for i in range(6)],
    "place": [[i, 2.0 * i] for i in range(6)],
    "latent": [[[i + 1.0, 2.0]] * 2 for i in range(6)],
  }
  kinds = datasets.Features({
    "image": datasets.Image(), "species": datasets.Value("string"), "digit": datasets.Value("int64"),
    "age": datasets.Value("float32"), "place": datasets.List(datasets.Value("float64")),
    "latent": datasets.List(datasets.List(datasets.Value("float32"))),
  })  # fmt: skip
  table = datasets.Dataset.from_dict(rows, features=kinds)
  datasets.DatasetDict({"train": table, "test": table.select([0, 1])}).save_to_disk(str(tmp_path / "saved"))
  return tmp_path / "saved"


@pytest.mark.parametrize("cache", [False, True])
def test_its_pictures_go_through_the_one_reader(saved, tmp_path, cache):
  options = {"cache": tmp_path / "cache"} if cache else {}
  source = data.load_hf(saved, label_column="species", condition_columns=["age", "place"], **options)
  assert (source.size, source.shape, source.classes) == (6, (12, 20, 3), ("cat", "hen", "owl"))
  images, labels = source.read(np.arange(6))
  assert labels.tolist() == [2, 1, 2, 1, 2, 0]
  for image, name in zip(images, KINDS, strict=True):
    _, expected, tolerance = corpus.good()[name]
    assert np.abs(image - expected.astype(float)).max() <= tolerance
  np.testing.assert_array_equal(source.conditions, [[i, i, 2 * i] for i in range(6)])
  assert source.found.modes == {"RGB": 2, "I;16": 1, "LA": 1, "L": 1, "P": 1}


def test_splits_numbers_and_arrays(saved):
  source = data.load_hf(saved, 8, split="test", label_column="digit")
  assert (source.size, source.shape, source.classes) == (2, (8, 8, 3), ("9", "10"))
  assert data.load_hf(saved, 8).classes == ()  # there is no column "label"
  latents = data.load_hf(saved, image_column="latent", label_column=None, values="minmax")
  assert (latents.size, latents.shape, latents.scaling.dtype) == (6, (2, 2, 1), "float32")
  np.testing.assert_array_equal(latents.read(np.array([4]))[0][0, ..., 0], [[5, 2], [5, 2]])


def test_folders_that_the_library_can_load(tmp_path):
  for i, kind in enumerate(("cat", "dog", "dog")):
    (tmp_path / "pets" / kind).mkdir(parents=True, exist_ok=True)
    Image.fromarray(corpus.RGB).save(tmp_path / "pets" / kind / f"{i}.png")
  source = data.load_hf(tmp_path / "pets")
  assert source.classes == ("cat", "dog")
  np.testing.assert_array_equal(source.read(np.array([2]))[0][0], corpus.RGB)


@pytest.mark.parametrize("change", [None, "replaced", "in secret"])
def test_pictures_beside_a_table_are_noticed_when_they_change(tmp_path, change):
  """A table of a folder holds the paths of its pictures alone."""
  folder = tmp_path / "pets"
  folder.mkdir()
  for i in range(3):
    Image.fromarray(corpus.RGB + np.uint8(i)).save(folder / f"{i}.png")
  rows, options = np.arange(3), {"cache": tmp_path / "cache"}
  before = data.load_hf(folder, 8, **options).read(rows)[0]
  path, status = folder / "1.png", (folder / "1.png").stat()
  if change is not None:
    Image.fromarray(corpus.RGB[::-1]).save(path)
  if change == "in secret":
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
  again, expected = (data.load_hf(folder, 8, **given).read(rows)[0] for given in (options, {}))
  np.testing.assert_array_equal(again, expected)
  assert np.array_equal(again, before) == (change is None)


def test_broken_rows_are_named_or_skipped(tmp_path):
  rows = {
    "image": [{"bytes": corpus.encode(corpus.RGB, "PNG"), "path": None}, {"bytes": b"x", "path": None}, None]
  }
  kinds = datasets.Features({"image": datasets.Image()})
  datasets.Dataset.from_dict(rows, features=kinds).save_to_disk(str(tmp_path / "x"))
  with pytest.raises(ValueError, match="row 1 cannot be used: it is no picture"):
    data.load_hf(tmp_path / "x")
  source = data.load_hf(tmp_path / "x", skip_broken=True)
  assert source.size == 1
  assert [name for name, _ in source.found.skipped] == ["row 1", "row 2"]


def test_what_is_not_there_is_said(saved, tmp_path):
  (tmp_path / "empty").mkdir()
  for arguments, message in (
    ({"name": saved, "split": "validation"}, r"has splits \['test', 'train'\], got 'validation'"),
    ({"name": saved, "image_column": "img"}, "has columns image, .*, not img"),
    ({"name": tmp_path / "nowhere"}, "there is no folder .*nowhere"),
    ({"name": "no such name"}, "there is no folder no such name, and it is no NAME"),
    ({"name": tmp_path / "empty"}, "cannot be loaded: "),
  ):
    with pytest.raises(ValueError, match=message) as caught:
      data.load_hf(**arguments)
    assert str(caught.value).isprintable()
