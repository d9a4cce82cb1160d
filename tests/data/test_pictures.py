import io

import numpy as np
import pytest
from PIL import Image

from ddim_jax import data
from ddim_jax.data import forms
from tests.data import corpus

GOOD, BAD = corpus.good(), corpus.bad()


def write(folder, name, content):
  path = folder / name
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(content)
  return path


@pytest.mark.parametrize("name", GOOD)
def test_every_kind_is_read_right(tmp_path, name):
  content, expected, tolerance = GOOD[name]
  path = write(tmp_path, name, content)
  for file in (path, str(path), io.BytesIO(content)):
    pixels = data.read_picture(file)
    assert (pixels.dtype, pixels.shape) == (np.uint8, expected.shape)
    assert np.abs(pixels - expected.astype(float)).max() <= tolerance


def refused(path, match="cannot be used: ", **options):
  """A refusal in one printable line that names the file."""
  with pytest.raises(ValueError, match=match) as caught:
    data.read_picture(path, **options)
  assert str(caught.value).isprintable()
  name = path.name if path.name.isprintable() else ascii(path.name)[1:-1]
  assert name in str(caught.value)


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_is_refused_by_name_in_one_line(tmp_path, name):
  refused(write(tmp_path, name, BAD[name]))


def test_places_without_a_picture_are_refused(tmp_path):
  (tmp_path / "folder.png").mkdir()
  (tmp_path / "dead.png").symlink_to(tmp_path / "nowhere.png")
  for name, reason in (
    ("folder.png", "Is a directory"),
    ("dead.png", "No such file"),
    ("no.png", "No such file"),
  ):
    refused(tmp_path / name, f"cannot be used: {reason}")


SAMPLE = "grey.png interlaced.png palette.gif smooth.jpg progressive.JPEG rgb.webp rgb.bmp deflate.tif"


@pytest.mark.parametrize("name", [*SAMPLE.split(), "wide.tif", "wide.pgm", "wide.png"])
def test_a_truncated_file_is_whole_or_refused(tmp_path, name):
  content, _, _ = GOOD[name]
  whole, refusals = data.read_picture(io.BytesIO(content)), 0
  for cut in np.linspace(0, len(content) - 1, 10).astype(int):
    path = write(tmp_path, name, content[:cut])
    try:
      np.testing.assert_array_equal(data.read_picture(path), whole)
    except ValueError as error:
      assert f"{name} cannot be used: " in str(error)
      refusals += 1
  assert refusals >= 8


TURNED = {
  1: lambda s: s, 2: lambda s: s[:, ::-1], 3: lambda s: s[::-1, ::-1], 4: lambda s: s[::-1],
  5: lambda s: s.swapaxes(0, 1), 6: lambda s: np.rot90(s, -1), 7: lambda s: s[::-1, ::-1].swapaxes(0, 1),
  8: np.rot90,
}  # fmt: skip
"""What EXIF's orientations say about the stored rows and columns."""


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_exif_says_what_is_up(kind, orientation):
  exif = Image.Exif()
  exif[0x0112] = orientation
  options = {"PNG": {}, "JPEG": {"quality": 95}, "TIFF": {}, "WEBP": {"lossless": True}}[kind]
  stored = np.repeat(corpus.SMOOTH[..., None], 3, axis=2)
  content = corpus.encode(stored, kind, exif=exif, **options)
  expected = TURNED[orientation](stored).astype(int)
  pixels = data.read_picture(io.BytesIO(content))
  assert np.abs(pixels - expected).max() <= (3 if kind == "JPEG" else 0)
  # A crop counts in pixels of the upright picture.
  small, _ = data.pictures.decode(io.BytesIO(content), forms.make_form((4, 4), (12, 10)), "x")
  assert small.shape == (4, 4, 3)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_channels_are_those_asked_for(channels):
  both = np.dstack([corpus.RGB, corpus.ALPHA])
  luma = corpus.RGB @ np.array([0.299, 0.587, 0.114])
  expected = {
    1: corpus.over_white(corpus.RGB, corpus.ALPHA) @ np.array([[0.299], [0.587], [0.114]]),
    2: np.dstack([luma, corpus.ALPHA]), 3: corpus.over_white(corpus.RGB, corpus.ALPHA), 4: both,
  }[channels]  # fmt: skip
  pixels = data.read_picture(io.BytesIO(corpus.encode(both, "PNG")), channels=channels)
  assert np.abs(pixels - expected).max() <= 1.5
  opaque = data.read_picture(io.BytesIO(corpus.encode(corpus.GREY, "PNG")), channels=channels)
  expected = [corpus.GREY] * {1: 1, 2: 1, 3: 3, 4: 3}[channels] + [np.full_like(corpus.GREY, 255)] * (
    channels % 2 == 0
  )
  np.testing.assert_array_equal(opaque, np.dstack(expected))


def test_16_bits_stay_16_bits_and_8_become_16():
  for name in ("wide.png", "wide.tif", "wide.pgm"):
    pixels = data.read_picture(io.BytesIO(GOOD[name][0]), channels=1, dtype="uint16")
    np.testing.assert_array_equal(pixels[..., 0], corpus.WIDE)
  pixels = data.read_picture(io.BytesIO(GOOD["rgb.png"][0]), dtype="uint16")
  np.testing.assert_array_equal(pixels, corpus.RGB * np.uint16(257))
  with pytest.raises(ValueError, match="several channels of more than 8 bits"):
    data.read_picture(io.BytesIO(GOOD["wide_rgb.png"][0]), dtype="uint16")


def test_values_say_what_is_black_and_white(tmp_path):
  deep = corpus.WIDE // 16  # 12 bits in a file of 16
  path = write(tmp_path, "deep.png", corpus.encode(deep, "PNG"))
  pixels = data.read_picture(path, channels=1, values=(0, 4095))
  assert np.abs(pixels[..., 0] - deep * (255 / 4095)).max() <= 0.5
  refused(path, r"beyond values=\(0, 255\)", values=(0, 255))
  floats = (corpus.WIDE / np.float32(65535)) * 6 - 3
  path = write(tmp_path, "float.tif", corpus.encode(floats, "TIFF"))
  pixels = data.read_picture(path, channels=1, values=(-3, 3))
  assert np.abs(pixels[..., 0] - corpus.WIDE / 257).max() <= 0.51
  np.testing.assert_array_equal(data.read_picture(path, channels=1, dtype="float32")[..., 0], floats)
  refused(path, "say what is black and white")
  refused(path, "use float32", dtype="uint16")
  refused(write(tmp_path, "rgb.png", GOOD["rgb.png"][0]), "has 8 bits", dtype="float32")


def test_numbers_of_32_bits_without_a_sign_are_not_negative():
  numbers = corpus.WIDE.astype(np.uint32) * 65_537
  content = corpus.tiff(numbers, 32)
  pixels = data.read_picture(io.BytesIO(content), channels=1, dtype="float32")
  np.testing.assert_array_equal(pixels[..., 0], numbers.astype(np.float32))
  pixels = data.read_picture(io.BytesIO(content), channels=1, values=(0, 2**32 - 1))
  assert np.abs(pixels[..., 0] - corpus.WIDE / 257).max() <= 0.51
  signed = corpus.tiff((corpus.WIDE.astype(np.int32) - 32768) * 65_000, 32, kind=2)
  assert data.read_picture(io.BytesIO(signed), channels=1, dtype="float32").min() < -2e9


def test_twelve_bits_are_the_numbers_asked_for():
  deep = corpus.WIDE // 16
  content = corpus.tiff(deep, 12, raw=corpus.twelve_bits(deep))
  for dtype in ("uint16", "float32"):
    pixels = data.read_picture(io.BytesIO(content), channels=1, dtype=dtype)
    np.testing.assert_array_equal(pixels[..., 0], deep)
  pixels = data.read_picture(io.BytesIO(content), channels=1, values=(0, 8190))
  assert np.abs(pixels[..., 0] - deep * (255 / 8190)).max() <= 0.51


@pytest.mark.parametrize("name", ["~no-such-user-at-all/x.png", "", "gs://b/x.png", "a\0b.png"])
def test_what_is_no_path_is_named(name):
  with pytest.raises(ValueError, match="path must"):
    data.read_picture(name)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"channels": 0}, "channels must be positive, got 0"),
    ({"dtype": "int8"}, "dtype must be one of .*uint16.*, got 'int8'"),
    ({"values": (1, 1)}, "values must be two rising finite numbers"),
    ({"values": (0, float("nan"))}, "values must be two rising finite numbers"),
    ({"size": (20, 0)}, r"image_size must be a positive integer or a pair \(height, width\)"),
    ({"channels": 5}, "3 channels, not 5"),
  ],
)
def test_bad_arguments(tmp_path, options, message):
  with pytest.raises(ValueError, match=message):
    data.read_picture(write(tmp_path, "x.png", GOOD["rgb.png"][0]), **options)


def test_a_wide_panorama_is_no_bomb(tmp_path):
  path = tmp_path / "wide.png"
  Image.new("L", (30_000, 20), 7).save(path)
  assert data.read_picture(path, channels=1).shape == (20, 30_000, 1)


def test_a_picture_is_fitted_to_a_size(tmp_path):
  """Grey in the middle square, black beside it."""
  pixels = np.zeros((16, 24, 3), np.uint8)
  pixels[:, 4:20] = 100
  path = write(tmp_path, "x.png", corpus.encode(pixels, "PNG"))
  np.testing.assert_array_equal(data.read_picture(path, size=(4, 4)), np.full((4, 4, 3), 100))
  np.testing.assert_array_equal(data.read_picture(path, size=(16, 24)), pixels)


def test_a_mask_is_white_where_to_paint(tmp_path):
  half = np.repeat(np.array([[0, 255]], np.uint8), 4, axis=0)
  path = write(tmp_path, "mask.png", corpus.encode(half, "PNG"))
  np.testing.assert_array_equal(data.read_mask(path, (4, 2))[..., 0], half == 0)
  with pytest.raises(ValueError, match="must have white pixels"):
    data.read_mask(write(tmp_path, "black.png", corpus.encode(half * 0, "PNG")), (4, 2))


def test_tiff_of_several_wide_channels(tmp_path):
  pytest.importorskip("tifffile", reason="needs the tiff extra")
  for channels, dtype in ((3, "uint16"), (2, "float32"), (1, "uint16"), (1, "float32"), (5, "uint16")):
    values = np.arange(6 * 7 * channels).reshape(6, 7, channels).astype(dtype) * 100
    path = tmp_path / "x.tif"
    data.save_array(path, values)
    pixels = data.read_picture(path, channels=channels, dtype=dtype)
    np.testing.assert_array_equal(pixels, values)
    assert pixels.dtype == dtype
  content = path.read_bytes()
  for length in np.linspace(0, len(content) - 1, 10).astype(int):
    path.write_bytes(content[:length])
    refused(path, dtype="uint16", channels=5)


def test_resizing_cuts_or_pads():
  image = np.full((10, 30, 3), 90, np.uint8)
  image[:, 10:20] = 200
  np.testing.assert_array_equal(forms.resize(image, forms.make_form(5)), np.full((5, 5, 3), 200))
  wide = forms.resize(image, forms.make_form((4, 12)))
  assert wide.shape == (4, 12, 3)
  assert np.abs(wide[2, [0, 6], 0] - [90.0, 200.0]).max() <= 3  # bicubic overshoots
  padded = forms.resize(image, forms.make_form(12, fit="pad"))
  assert np.all(padded[:4] == 0) and np.all(padded[8:] == 0) and np.all(padded[4:8] > 0)
  deep = forms.resize(image.astype(np.uint16) * 257, forms.make_form((4, 12), dtype="uint16"))
  assert deep.dtype == np.uint16
  assert np.abs(deep / 257 - wide).max() < 2  # bytes are rounded on the way
  for arguments, message in (
    ((0,), "image_size must be"),
    (((3, 4, 5),), "image_size"),
    ((4, (2, 0)), "crop must"),
  ):
    with pytest.raises(ValueError, match=message):
      forms.make_form(*arguments)
  with pytest.raises(ValueError, match="fit must be 'crop' or 'pad', got 'stretch'"):
    forms.make_form(4, fit="stretch")


def test_photographs_are_decoded_small_and_look_the_same():
  grid = np.linspace(0, 6, 960)
  photo = (127 + 60 * np.sin(grid)[:, None] + 60 * np.cos(grid * 1.3)[None, : 1280 * 3 // 4]).astype(np.uint8)
  whole, content = np.repeat(photo[..., None], 3, axis=2), corpus.encode(photo, "JPEG", quality=95)
  for size, crop, fit in ((32, None, "crop"), ((20, 48), (700, 800), "crop"), ((40, 30), None, "pad")):
    form = forms.make_form(size, crop, fit=fit)
    small, held = data.pictures.decode(io.BytesIO(content), form, "photo")
    assert (held.width, held.height) == photo.shape[::-1]
    assert np.abs(small.astype(int) - forms.resize(whole, form)).max() <= 5


@pytest.mark.filterwarnings("ignore")  # Pillow's own, on damaged metadata
@pytest.mark.parametrize("seed", range(3))
def test_damaged_bytes_give_a_picture_or_a_line(seed):
  random = np.random.default_rng(seed)
  for name, (content, _, _) in GOOD.items():
    damaged = bytearray(content)
    for at in random.integers(0, len(damaged), 3):
      damaged[at] = random.integers(0, 256)
    for options in ({}, {"channels": 1, "dtype": "uint16"}, {"channels": 1, "dtype": "float32"}):
      try:
        pixels, _ = data.pictures.decode(io.BytesIO(bytes(damaged)), forms.make_form(4, **options), name)
        assert pixels.shape == (4, 4, options.get("channels", 3))
      except ValueError as error:
        assert str(error).isprintable()
