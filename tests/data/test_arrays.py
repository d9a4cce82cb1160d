import jax
import numpy as np
import optax
import pytest
from PIL import Image

import ddim_jax
from ddim_jax import data, training
from ddim_jax.data import sources

SIZE = 23
_random = np.random.default_rng(1)
BYTES = _random.integers(0, 256, (SIZE, 6, 10, 3), np.uint8)
LABELS = _random.integers(0, 3, SIZE)
EVERY = np.arange(SIZE)


def folder(path, images=BYTES, labels=LABELS):
  for i, (image, label) in enumerate(zip(images, labels, strict=True)):
    place = path / f"class {label}"
    place.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(place / f"{i:03}.png")
  return path


def in_order(images, labels):
  """Arrays in the order in which a folder of them is read: by class, then by name."""
  order = np.argsort(labels, kind="stable")
  return images[order], labels[order]


@pytest.fixture
def hf(tmp_path):
  def make():
    datasets = pytest.importorskip("datasets", reason="needs the hf extra")
    images, labels = in_order(BYTES, LABELS)
    kinds = datasets.Features({
      "image": datasets.Image(), "label": datasets.ClassLabel(names=["class 0", "class 1", "class 2"])
    })  # fmt: skip
    rows = {"image": [Image.fromarray(image) for image in images], "label": labels.tolist()}
    datasets.Dataset.from_dict(rows, features=kinds).save_to_disk(str(tmp_path / "hf"))
    return data.load_hf(tmp_path / "hf")

  return make


@pytest.fixture
def make(tmp_path, monkeypatch, hf):
  """``make(kind) -> Source`` of the same images, labels and classes, stored in another way."""

  def create(kind):
    images, labels = in_order(BYTES, LABELS)
    classes = ("class 0", "class 1", "class 2")
    if kind == "memory":
      return data.in_memory("memory", images, labels, classes)
    if kind == "hf":
      return hf()
    if kind in ("npy", "mapped"):
      np.save(tmp_path / "x.npy", images)
      if kind == "mapped":
        monkeypatch.setattr(sources, "MEMORY_LIMIT", 0)
      return data.load_array(tmp_path / "x.npy", labels=labels, classes=classes)
    if kind == "npz":
      np.savez(tmp_path / "x.npz", images=images, labels=np.array(classes)[labels])
      return data.load_array(tmp_path / "x.npz")
    path = folder(tmp_path / "folder")
    if kind == "cache":
      data.load_folder(path, cache=tmp_path / "cache")
      return data.load_folder(path, cache=tmp_path / "cache")
    if kind == "as needed":
      monkeypatch.setattr(sources, "MEMORY_LIMIT", 0)
    return data.load_folder(path)

  return create


KINDS = ["memory", "npy", "mapped", "npz", "folder", "cache", "as needed", "hf"]


@pytest.mark.parametrize("kind", KINDS)
def test_batches_are_the_same_however_the_data_are_kept(make, kind):
  source = make(kind)
  assert (source.size, source.shape, source.scaling) == (SIZE, (6, 10, 3), data.BYTES)
  assert source.classes == ("class 0", "class 1", "class 2")
  images, labels = in_order(BYTES, LABELS)
  for step in (0, 5):
    at = data.batch_indices(SIZE, 8, 3, step)
    whole = data.batch_at(source, step, batch_size=8, seed=3)
    np.testing.assert_array_equal(whole.image, images[at])
    np.testing.assert_array_equal(whole.label, labels[at])
    assert whole.condition.shape == (8, 0)
    flipped = data.batch_at(source, step, batch_size=8, seed=3, flip=True)
    for parts in (1, 2, 4):
      pieces = [
        data.batch_at(source, step, batch_size=8, seed=3, flip=True, part=(i, parts)) for i in range(parts)
      ]
      np.testing.assert_array_equal(np.concatenate([p.image for p in pieces]), flipped.image)
  np.testing.assert_array_equal(source.labels, labels)


def test_a_large_file_is_mapped_and_not_read(make):
  images, _ = make("mapped").read(np.arange(3))
  assert not isinstance(images, np.memmap)  # a batch is an array like any other


TYPES = {
  "uint8": (BYTES, None),
  "uint16": (BYTES.astype(np.uint16) * 16, (0, 4095)),
  "signed": (BYTES.astype(np.int16) - 100, (-100, 155)),
  "big endian": (BYTES.astype(">u2"), "minmax"),
  "unit": ((BYTES / 255).astype(np.float32), (0, 1)),
  "symmetric": ((BYTES / 127.5 - 1).astype(np.float32), (-1, 1)),
  "half": ((BYTES / 255).astype(np.float16), (0, 1)),
  "double": (BYTES / 255, (0, 1)),
  "grey": (BYTES[..., 0], None),
  "13 bands": (_random.integers(0, 10_000, (SIZE, 6, 10, 13)).astype(np.uint16), "minmax"),
  "latents": (_random.normal(2, 5, (SIZE, 4, 4, 4)).astype(np.float32), "standardise"),
  "features": (_random.normal(-3, 0.1, (SIZE, 17)).astype(np.float32), "standardise"),
}


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("kind", TYPES)
def test_arrays_of_every_kind_become_data_and_come_back(tmp_path, monkeypatch, kind, mapped):
  array, values = TYPES[kind]
  np.save(tmp_path / "x.npy", array)
  if mapped:
    monkeypatch.setattr(sources, "MEMORY_LIMIT", 0)
  source = data.load_array(tmp_path / "x.npy", values=values)
  assert source.shape == ((6, 10, 1) if kind == "grey" else array.shape[1:])
  batch = data.batch_at(source, 2, batch_size=8).image
  assert batch.dtype.isnative
  expected = array[data.batch_indices(SIZE, 8, 0, 2)].reshape(batch.shape)
  np.testing.assert_array_equal(batch, expected.astype(batch.dtype))
  seen = np.asarray(source.scaling.to_data(batch))
  if values == "standardise":
    assert (np.abs(seen.mean()) < 0.5, 0.5 < seen.std() < 1.5) == (True, True)
  else:
    low, high = (array.min(), array.max()) if values == "minmax" else values or (0, 255)
    np.testing.assert_allclose(seen, 2 * (expected.astype(float) - low) / (float(high) - low) - 1, atol=1e-6)
  back = source.scaling.to_values(seen)
  assert back.dtype == batch.dtype
  np.testing.assert_allclose(back, batch, atol=0 if batch.dtype.kind in "iu" else 1e-5)


@pytest.mark.parametrize("kind", ["13 bands", "features"])
def test_data_of_every_kind_train(kind):
  array, values = TYPES[kind]
  source = data.in_memory(kind, array, values=values)
  network = lambda params, x, t, labels, keys: params["scale"] * x
  losses = training.example_losses(network, ddim_jax.linear_schedule())
  optimizer = optax.sgd(0.1)
  decay = training.constant_decay(0.9)
  step = jax.jit(training.make_train_step(losses, training.uniform_levels(1000), optimizer, decay))
  state = training.create_state({"scale": np.float32(0)}, optimizer)
  for i in range(2):
    images, labels, _ = data.batch_at(source, i, batch_size=8)
    state, metrics = step(state, jax.random.key(0), source.scaling.to_data(images), labels)
    assert 0.2 < float(metrics["loss"]) < 3  # noise of variance 1, and a network near 0


def test_16_bit_samples_are_saved_with_their_own_range(tmp_path):
  array, values = TYPES["uint16"]
  source = data.in_memory("scans", array[..., :1], values=values)
  samples = np.linspace(-1.2, 1, 60, dtype=np.float32).reshape(1, 6, 10, 1)  # as of a model
  back = source.scaling.to_values(samples)
  assert (back.min(), back.max(), back.dtype) == (0, 4095, np.uint16)
  for name in ("deep/x.tif", "X.TIFF"):
    data.save_array(tmp_path / name, back[0])
    with Image.open(tmp_path / name) as image:
      np.testing.assert_array_equal(np.asarray(image), back[0, ..., 0])
  data.save_array(tmp_path / "x.npz", back)
  again = data.load_array(tmp_path / "x.npz", values=source.scaling)
  np.testing.assert_array_equal(again.read(np.array([0]))[0], back)
  with pytest.raises(ValueError, match=r"must end in \.npy, .*got .*x\.png"):
    data.save_array(tmp_path / "x.png", back[0])
  with pytest.raises(ValueError, match="TIFF takes one image"):
    data.save_array(tmp_path / "y.tif", back)


def test_a_test_set_takes_the_scaling_of_the_training_set():
  array, _ = TYPES["latents"]
  train = data.in_memory("train", array, values="standardise")
  test = data.in_memory("test", array[:2] + 1, values=train.scaling)
  assert test.scaling == train.scaling
  with pytest.raises(ValueError, match="values are those of float32, the data are uint8"):
    data.in_memory("test", BYTES, values=train.scaling)


@pytest.mark.parametrize(
  ("array", "values", "message"),
  [
    ((BYTES / 255).astype(np.float32), None, "values must be given for float32"),
    (BYTES.astype(np.uint16), None, "values must be given for uint16"),
    (BYTES.astype(np.float32), (0, 1), r"holds values from 0 to 255, beyond those said: 0 to 1 \(float32\)"),
    (np.full((2, 4, 4, 1), np.nan, np.float32), (0, 1), "holds values from nan"),
    (np.full((2, 4), np.inf, np.float32), "standardise", "channel 0 is not"),
    (np.full((2, 4, 4, 1), np.nan, np.float32), "minmax", "must be finite numbers"),
    (BYTES.astype(np.int64), (0, 255), "one of uint8, uint16.* got int64"),
    (BYTES > 9, None, "got bool"),
    (BYTES[:0], None, "non-empty"),
    (BYTES[0, 0, 0], None, r"got uint8\[3\]"),
    (BYTES.astype(np.float32), "auto", "got 'auto'"),
    (BYTES.astype(np.float32), (0, [255, 255]), "values are for 2 channels, the data have 3"),
  ],
)
@pytest.mark.parametrize("mapped", [False, True])
def test_what_numbers_mean_is_never_guessed(tmp_path, monkeypatch, array, values, message, mapped):
  np.save(tmp_path / "x.npy", array)
  if mapped and array.size:
    monkeypatch.setattr(sources, "MEMORY_LIMIT", 0)
  with pytest.raises(ValueError, match=message):
    data.load_array(tmp_path / "x.npy", values=values).read(np.arange(2))


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ({"labels": LABELS[:3]}, r"labels must be \[23\] integers"),
    ({"labels": LABELS / 2}, "labels must be .*integers"),
    ({"labels": LABELS, "classes": ("a", "b")}, r"labels must lie in \[0, 2\), got 0 to 2"),
    ({"labels": LABELS - 1, "classes": ("a", "b", "c")}, "got -1 to 1"),
    ({"conditions": np.ones(3)}, r"conditions must be finite \[23\]"),
    ({"conditions": np.full((SIZE, 2), np.nan)}, "conditions must be finite"),
  ],
)
def test_labels_and_conditions_that_do_not_fit_are_refused(tmp_path, arguments, message):
  with pytest.raises(ValueError, match=message):
    data.in_memory("x", BYTES, **arguments)
  np.save(tmp_path / "x.npy", BYTES)
  with pytest.raises(ValueError, match=message):
    data.load_array(tmp_path / "x.npy", **arguments)


def test_labels_of_arrays_get_names(tmp_path):
  np.savez(tmp_path / "x.npz", x=BYTES, y=LABELS)
  assert data.load_array(tmp_path / "x.npz").classes == ("0", "1", "2")
  np.save(tmp_path / "y.npy", np.array(["owl", "hen"])[LABELS % 2])
  np.save(tmp_path / "age.npy", LABELS / 2)
  source = data.load_array(tmp_path / "x.npz", labels=tmp_path / "y.npy", conditions=tmp_path / "age.npy")
  assert source.classes == ("hen", "owl")
  np.testing.assert_array_equal(source.labels, 1 - LABELS % 2)
  np.testing.assert_array_equal(source.conditions[:, 0], (LABELS / 2).astype(np.float32))


def test_files_that_hold_no_arrays_are_refused_by_name(tmp_path):
  np.save(tmp_path / "whole.npy", BYTES)
  whole = (tmp_path / "whole.npy").read_bytes()
  np.save(tmp_path / "objects.npy", np.array([{}, []], dtype=object), allow_pickle=True)
  np.savez(tmp_path / "two.npz", a=BYTES, b=BYTES)
  cases = {"short.npy": whole[:500], "header.npy": whole[:20], "empty.npz": b"", "text.npy": b"hello"}
  for name, content in cases.items():
    (tmp_path / name).write_bytes(content)
  for name in (*cases, "objects.npy", "nowhere.npy"):
    with pytest.raises(ValueError, match=rf"{name} cannot be used: [^\n]+$"):
      data.load_array(tmp_path / name)
  with pytest.raises(ValueError, match=r"two\.npz has arrays \['a', 'b'\]; one must be called images"):
    data.load_array(tmp_path / "two.npz")


def test_vectors_cannot_be_flipped():
  source = data.in_memory("x", TYPES["features"][0], values="standardise")
  with pytest.raises(ValueError, match="flip is for images"):
    data.batch_at(source, 0, batch_size=2, flip=True)
