import functools
import gzip
import hashlib
import http.server
import io
import shutil
import tarfile
import threading
import time

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from ddim_jax import data
from ddim_jax.data import builders, forms, prepared, sources
from tests.helpers import cifar_archive


@pytest.fixture
def cifar_dir(tmp_path):
  manual = tmp_path / "downloads" / "manual"
  manual.mkdir(parents=True)
  return tmp_path, manual / "cifar-10-binary.tar.gz"


def pairs(images, labels):
  """Images with their labels, sorted: TFDS shuffles once when it prepares."""
  return sorted((int(n), i.tobytes()) for n, i in zip(labels, images, strict=True))


def test_cifar10_from_a_hand_placed_archive(cifar_dir, caplog):
  root, path = cifar_dir
  records = cifar_archive(path)
  train, test = (data.load_builtin("cifar10", split, root) for split in ("train", "test"))
  assert "not the official file" in caplog.text
  assert (train.size, train.shape, len(train.classes)) == (80, (32, 32, 3), 10)
  expected = np.concatenate([records["data_batch_1.bin"], records["data_batch_2.bin"]])
  for source, rows in ((train, expected), (test, records["test_batch.bin"])):
    planes = rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    assert pairs(*source.read(np.arange(source.size))) == pairs(planes, rows[:, 0])


def archived(kept, **arrays):
  np.savez(kept, **dict(np.load(kept)) | arrays)


DAMAGE = {
  None: lambda kept: None,
  "cut": lambda kept: kept.write_bytes(kept.read_bytes()[:1000]),
  "empty": lambda kept: kept.write_bytes(b""),
  "flipped": lambda kept: kept.write_bytes(bytes(b ^ (i == 9000) for i, b in enumerate(kept.read_bytes()))),
  "text": lambda kept: kept.write_text("nothing of the kind"),
  "another kind of file": lambda kept: kept.write_bytes(corpus_of_array()),
  "fewer images": lambda kept: archived(kept, images=np.zeros((5, 8, 8, 1), np.uint8)),
  "fewer labels": lambda kept: archived(kept, labels=np.zeros(5, np.int32)),
  "of other records": lambda kept: archived(kept, identity="[]"),
  "of an earlier version": lambda kept: np.savez(
    kept, **{k: v for k, v in np.load(kept).items() if k != "identity"}
  ),
  "no labels": lambda kept: np.savez(kept, images=np.load(kept)["images"]),
  "folder": lambda kept: (kept.unlink(), kept.mkdir()),
}


def corpus_of_array():
  buffer = io.BytesIO()
  np.save(buffer, np.zeros((5, 8, 8, 1), np.uint8))
  return buffer.getvalue()


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_second_start_decodes_nothing(data_dir, tmp_path, monkeypatch, damage):
  """And decodes again where what it finds is not that."""
  data.load_builtin("digits", "train", data_dir)
  shutil.copytree(data_dir / "digits_png", tmp_path / "digits_png")
  for left in tmp_path.rglob("decoded-*.npz"):
    left.unlink()
  first = data.load_builtin("digits", "train", tmp_path)
  (kept,) = tmp_path.rglob("decoded-train.npz")
  DAMAGE[damage](kept)
  times, resize = [], prepared.resize
  monkeypatch.setattr(prepared, "resize", lambda *given: times.append(1) or resize(*given))
  again = data.load_builtin("digits", "train", tmp_path)
  assert len(times) == (0 if damage is None else first.size)
  rows = np.arange(first.size)
  for a, b in zip(first.read(rows), again.read(rows), strict=True):
    np.testing.assert_array_equal(a, b)


def test_other_records_of_the_same_shape_are_noticed(tmp_path):
  """As when a prepared data set is copied over another."""
  folders = []
  for seed in (0, 1):
    manual = tmp_path / str(seed) / "downloads" / "manual"
    manual.mkdir(parents=True)
    cifar_archive(manual / "cifar-10-binary.tar.gz", seed=seed)
    folders.append(tmp_path / str(seed))
  first, second = (data.load_builtin("cifar10", "train", folder) for folder in folders)
  rows = np.arange(first.size)
  assert not np.array_equal(first.read(rows)[0], second.read(rows)[0])
  for record in folders[1].rglob("*array_record*"):
    shutil.copy2(record, folders[0] / record.relative_to(folders[1]))
  for got, expected in zip(
    data.load_builtin("cifar10", "train", folders[0]).read(rows), second.read(rows), strict=True
  ):
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("damage", ["short", "label", "missing"])
def test_cifar10_refuses_what_is_not_its_layout(cifar_dir, damage):
  root, path = cifar_dir
  payload = {"short": b"\0" * 3072, "label": b"\x0a" + b"\0" * 3072, "missing": b"\0" * 3073}[damage]
  with tarfile.open(path, "w:gz") as archive:
    member = tarfile.TarInfo("cifar-10-batches-bin/data_batch_1.bin")
    member.size = len(payload)
    archive.addfile(member, io.BytesIO(payload))
  with pytest.raises(ValueError, match="no test batches" if damage == "missing" else "records of 3073 bytes"):
    data.load_builtin("cifar10", "train", root)


def serve(folder):
  """The files of a folder over HTTP on the loopback interface."""
  handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
  server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
  threading.Thread(target=server.serve_forever, daemon=True).start()
  return server


@pytest.fixture
def local_cifar(tmp_path, monkeypatch):
  """The CIFAR-10 builder with its address on a local server, in place of one out of reach here."""
  import tensorflow_datasets as tfds

  served = tmp_path / "served"
  served.mkdir()
  archive = served / "cifar-10-binary.tar.gz"
  cifar_archive(archive)
  server = serve(served)
  checksum = hashlib.sha256(archive.read_bytes()).hexdigest()

  def point(checksum=checksum, port=server.server_port):
    info = tfds.download.checksums.UrlInfo(
      size=tfds.core.units.Size(archive.stat().st_size), checksum=checksum, filename=archive.name
    )
    monkeypatch.setattr(builders.Cifar10Png, "url_infos", {f"http://127.0.0.1:{port}/{archive.name}": info})

  yield point
  server.shutdown()
  server.server_close()


def test_cifar10_is_downloaded_with_its_checksum(local_cifar, tmp_path):
  local_cifar()
  assert data.load_builtin("cifar10", "train", tmp_path / "data").size == 80


def test_a_download_with_another_checksum_is_refused(local_cifar, tmp_path):
  local_cifar(checksum="0" * 64)
  with pytest.raises(Exception, match="checksum"):
    data.load_builtin("cifar10", "train", tmp_path / "data")


def test_without_network_and_file_the_error_is_immediate_and_says_what_to_do(local_cifar, tmp_path):
  local_cifar(port=1)
  began = time.monotonic()
  with pytest.raises(FileNotFoundError, match=r"cannot be downloaded(.|\n)*manual(.|\n)*sha256"):
    data.load_builtin("cifar10", "train", tmp_path / "data")
  assert time.monotonic() - began < builders._CONNECT_SECONDS + 10


def test_digits_are_scikit_learns(data_dir):
  from sklearn.datasets import load_digits

  source, digits = data.load_builtin("digits", "train", data_dir), load_digits()
  assert (source.size, source.shape, source.classes) == (1797, (8, 8, 1), tuple("0123456789"))
  images, labels = source.read(np.arange(1797))
  np.testing.assert_array_equal(np.bincount(labels), np.bincount(digits.target))
  exact = np.round(digits.images * 255 / 16).astype(np.uint8)
  assert pairs(images, labels) == pairs(exact, digits.target)


@pytest.mark.slow
@pytest.mark.skipif(
  not builders.DEBIAN_FASHION_MNIST.is_dir(), reason="needs Debian's package dataset-fashion-mnist"
)
def test_fashion_mnist_is_whole(tmp_path, monkeypatch):
  """All pixels as they are read, and 300 images of each split as TFDS stores and returns them."""
  whole = builders.FashionMnistPng(data_dir=tmp_path).read_splits(None)
  for split, part, size in (("train", "train", 60_000), ("test", "t10k", 10_000)):
    images, labels = whole[split]
    raw = gzip.decompress((builders.DEBIAN_FASHION_MNIST / f"{part}-images-idx3-ubyte.gz").read_bytes())[16:]
    assert (images.shape, images.tobytes()) == ((size, 28, 28, 1), raw)
    assert np.bincount(labels).tolist() == [size // 10] * 10
  begun = {split: (images[:300], labels[:300]) for split, (images, labels) in whole.items()}
  monkeypatch.setattr(builders.FashionMnistPng, "read_splits", lambda *_: begun)
  for split, (images, labels) in begun.items():
    source = data.load_builtin("fashion_mnist", split, tmp_path)
    assert (source.size, source.shape, source.classes) == (300, (28, 28, 1), builders.FashionMnistPng.CLASSES)
    assert pairs(*source.read(np.arange(300))) == pairs(images, labels)


def test_a_truncated_idx_file_is_refused(tmp_path):
  path = tmp_path / "x.gz"
  for raw in (b"", b"\0\0\x08\x01\0\0\0\x05abc", b"\0\0\x0d\x01\0\0\0\x01aaaa"):
    path.write_bytes(gzip.compress(raw))
    with pytest.raises(ValueError, match="not a complete IDX file"):
      builders.read_idx(path)


def test_unknown_names_and_splits_are_refused(data_dir):
  with pytest.raises(ValueError, match=r"one of .*cifar10.*got 'mnist'"):
    data.load_builtin("mnist", "train", data_dir)
  with pytest.raises(ValueError, match=r"splits \['train'\], got 'test'"):
    data.load_builtin("digits", "test", data_dir)


def test_any_prepared_array_record_data_set_by_name(data_dir):
  data.load_builtin("digits", "train", data_dir)
  source = data.load_tfds("digits_png", "train", data_dir, image_size=16)
  assert (source.size, source.shape) == (1797, (16, 16, 1))
  assert source.read(np.array([3]))[0].shape == (1, 16, 16, 1)
  with pytest.raises(ValueError, match="knows no data set"):
    data.load_tfds("no_such_set", "train", data_dir)
  with pytest.raises(ValueError, match="not prepared below"):
    data.load_tfds("mnist", "train", data_dir)
  with pytest.raises(ValueError, match=r"cannot use the name 'mnist:9\.9\.9': [^\n]*$"):
    data.load_tfds("mnist:9.9.9", "train", data_dir)


@pytest.fixture
def folder(tmp_path):
  for i, (name, size) in enumerate(
    [("cat/a.png", (30, 20)), ("cat/b.jpg", (16, 16)), ("dog/c.webp", (20, 40))]
  ):
    path = tmp_path / "images" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (80 * i, 10, 200)).save(path, lossless=True, quality=100)
  return tmp_path / "images"


def test_folder_of_images(folder):
  source = data.load_folder(folder, 8)
  assert (source.size, source.shape, source.classes) == (3, (8, 8, 3), ("cat", "dog"))
  images, labels = source.read(np.arange(3))
  assert labels.tolist() == [0, 0, 1]
  for i in range(3):
    assert np.abs(images[i].astype(int) - [80 * i, 10, 200]).max() <= 3  # JPEG rounds


def test_folder_without_classes_and_its_errors(folder, tmp_path):
  assert data.load_folder(folder / "cat", 8).classes == ()
  (folder / "stray.png").write_bytes((folder / "cat" / "a.png").read_bytes())
  with pytest.raises(ValueError, match=r"outside them, such as stray\.png"):
    data.load_folder(folder, 8)
  (folder / "cat" / "broken.png").write_bytes(b"no image")
  with pytest.raises(ValueError, match=r"broken\.png cannot be used"):
    data.load_folder(folder / "cat", 8)
  (tmp_path / "empty").mkdir()
  with pytest.raises(ValueError, match="holds no images"):
    data.load_folder(tmp_path / "empty", 8)
  with pytest.raises(ValueError, match="is not a folder"):
    data.load_folder(tmp_path / "nowhere", 8)


def test_photographs_are_turned_upright(tmp_path):
  picture = np.zeros((16, 16, 3), np.uint8)
  picture[:8] = 200  # light above
  image = Image.fromarray(picture)
  exif = image.getexif()
  exif[0x0112] = 3  # upside down
  image.save(tmp_path / "x.png", exif=exif)
  upright = data.load_folder(tmp_path, 16).read(np.array([0]))[0][0]
  np.testing.assert_array_equal(upright, picture[::-1])


def test_resize_takes_the_central_square():
  image = np.zeros((8, 12, 3), np.uint8)
  image[:, 2:10] = 200  # the central 8x8 square
  np.testing.assert_array_equal(forms.resize(image, forms.make_form(4)), np.full((4, 4, 3), 200))
  image[2:6, 4:8] = 50
  np.testing.assert_array_equal(forms.resize(image, forms.make_form(4, 4)), np.full((4, 4, 3), 50))
  with pytest.raises(ValueError, match=r"crop of 9x9 pixels \(height x width\) from an image of 8x12"):
    forms.resize(image, forms.make_form(4, 9))


def test_a_source_too_large_for_memory_is_read_as_needed(folder, monkeypatch):
  kept = data.load_folder(folder, 8)
  monkeypatch.setattr(sources, "MEMORY_LIMIT", 0)
  read = data.load_folder(folder, 8)
  for a, b in zip(kept.read(np.array([2, 0, 0])), read.read(np.array([2, 0, 0])), strict=True):
    np.testing.assert_array_equal(a, b)


ARRAY = np.arange(50 * 4 * 4, dtype=np.uint8).reshape(50, 4, 4, 1)
SOURCE = data.in_memory("test", ARRAY, np.arange(50))


def test_every_epoch_holds_every_example_once_across_batches():
  seen = np.concatenate([data.batch_indices(50, 16, seed=3, step=s) for s in range(25)])
  epochs = seen.reshape(8, 50)
  for epoch in epochs:
    assert sorted(epoch) == list(range(50))
  assert len({tuple(epoch) for epoch in epochs}) == 8
  assert not np.array_equal(data.batch_indices(50, 16, 4, 0), seen[:16])


def test_a_batch_is_larger_than_the_data_set():
  counts = np.bincount(data.batch_indices(50, 125, seed=0, step=0), minlength=50)
  assert set(counts) <= {2, 3}


@pytest.mark.parametrize("parts", [1, 2, 4, 16])
def test_parts_of_processes_make_up_the_same_batch(parts):
  whole = data.batch_at(SOURCE, 7, batch_size=16, seed=1, flip=True)
  pieces = [data.batch_at(SOURCE, 7, batch_size=16, seed=1, flip=True, part=(i, parts)) for i in range(parts)]
  np.testing.assert_array_equal(np.concatenate([p.image for p in pieces]), whole.image)
  np.testing.assert_array_equal(np.concatenate([p.label for p in pieces]), whole.label)


def test_flips_mirror_about_half_of_the_images():
  flipped = 0
  for step in range(25):
    batch = data.batch_at(SOURCE, step, batch_size=40, flip=True)
    for image, label in zip(batch.image, batch.label, strict=True):
      same, mirrored = np.array_equal(image, ARRAY[label]), np.array_equal(image, ARRAY[label][:, ::-1])
      assert same != mirrored
      flipped += mirrored
  assert 400 < flipped < 600


def test_batches_refuse_sizes_that_do_not_divide():
  with pytest.raises(ValueError, match="multiple of 3 processes, got 16"):
    data.batch_at(SOURCE, 0, batch_size=16, part=(0, 3))


def test_uint8_round_trip():
  every = np.arange(256, dtype=np.uint8)
  floats = data.from_uint8(every)
  assert floats.dtype == jnp.float32
  assert (float(floats.min()), float(floats.max())) == (-1, 1)
  np.testing.assert_array_equal(data.to_uint8(floats), every)
  np.testing.assert_array_equal(data.to_uint8(np.array([-7.0, 7.0])), [0, 255])


def test_in_memory_refuses():
  with pytest.raises(ValueError, match="values must be given for float32"):
    data.in_memory("x", ARRAY.astype(np.float32))
  with pytest.raises(ValueError, match=r"labels must be \[50\] integers, got int64\(3,\)"):
    data.in_memory("x", ARRAY, np.arange(3))


def test_prefetch_works_ahead_in_order_and_raises_at_the_right_step():
  made = []

  def make(step):
    made.append(step)
    if step == 6:
      raise ValueError("step 6")
    return step

  steps = data.prefetch(make, 2, 9, depth=2)
  assert next(steps) == 2
  deadline = time.monotonic() + 5
  while made != [2, 3, 4] and time.monotonic() < deadline:
    time.sleep(0.01)
  assert made == [2, 3, 4]
  assert [next(steps) for _ in range(3)] == [3, 4, 5]
  with pytest.raises(ValueError, match="step 6"):
    next(steps)
  assert list(data.prefetch(lambda s: s, 5, 5)) == []
  assert list(data.prefetch(lambda s: s, 0, 1)) == [0]


def test_prefetch_keeps_the_order_whatever_the_threads():
  def make(step):
    time.sleep(0.002 * (step % 3 == 0))
    if step == 17:
      raise ValueError("step 17")
    return step

  steps = data.prefetch(make, 0, 30, depth=6, threads=3)
  assert [next(steps) for _ in range(17)] == list(range(17))
  with pytest.raises(ValueError, match="step 17"):
    next(steps)


def test_broken_pictures_of_what_does_not_fit_into_memory_need_a_cache(folder, monkeypatch, tmp_path):
  monkeypatch.setattr(sources, "MEMORY_LIMIT", 0)
  (folder / "cat" / "broken.png").write_bytes(b"no image")
  with pytest.raises(ValueError, match="give cache=FOLDER"):
    data.load_folder(folder, 8, skip_broken=True)
  assert data.load_folder(folder, 8, skip_broken=True, cache=tmp_path / "cache").size == 3
  with pytest.raises(ValueError, match=r"broken\.png cannot be used"):
    data.load_folder(folder, 8).read(np.array([2]))
