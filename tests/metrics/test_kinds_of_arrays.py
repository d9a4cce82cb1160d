"""What is measured is what it is taken for: pictures in place of features and other types are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddim_jax import data, metrics, plots
from ddim_jax.metrics import classifier, resize
from ddim_jax.metrics.extract import gather, over_devices
from ddim_jax.models import from_network

FEATURES = np.random.default_rng(0).normal(size=(8, 3))
OTHER = FEATURES[::-1] * 2
MEASURES = {
  "moments": lambda x: metrics.moments(x),
  "score_sums": lambda x: metrics.score_sums(x),
  "squared_mmd, first": lambda x: metrics.squared_mmd(x, OTHER),
  "squared_mmd, second": lambda x: metrics.squared_mmd(OTHER, x),
  "kernel_distance": lambda x: metrics.kernel_distance([OTHER], [x]),
  "precision_recall, first": lambda x: metrics.precision_recall(x, OTHER),
  "precision_recall, second": lambda x: metrics.precision_recall(OTHER, x),
  "reconstruction_error, first": lambda x: metrics.reconstruction_error(x, OTHER),
  "reconstruction_error, second": lambda x: metrics.reconstruction_error(OTHER, x),
}
WRONG = {
  "bytes": np.uint8(100 * np.abs(FEATURES)),
  "int32": np.int32(100 * FEATURES),
  "bool": FEATURES > 0,
  "complex": FEATURES + 1j,
  "objects": FEATURES.astype(object),
  "text": FEATURES.astype(str),
  "one number NaN": np.where(np.arange(24).reshape(8, 3) == 7, np.nan, FEATURES),
  "one number infinite": np.where(np.arange(24).reshape(8, 3) == 7, -np.inf, FEATURES),
  "masked": np.ma.masked_greater(FEATURES, 1),
  "a vector": FEATURES[:, 0],
  "none": FEATURES[:0],
  "bytes on a device": jnp.asarray(np.uint8(100 * np.abs(FEATURES))),
}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("name", MEASURES)
def test_only_finite_floating_point_is_measured(name, kind):
  with pytest.raises(ValueError, match=r"must be (a non-empty floating-point|finite|without a mask)"):
    MEASURES[name](WRONG[kind])


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_narrow_features_are_measured_in_float64(dtype):
  """Sums of their squares would be beyond float16."""
  narrow = jnp.asarray(200 * FEATURES, dtype)
  exact = np.asarray(narrow, np.float64)
  np.testing.assert_allclose(metrics.moments(narrow).scatter, np.cov(exact, rowvar=False) * 7, rtol=1e-12)
  assert metrics.squared_mmd(narrow, exact) == metrics.squared_mmd(exact, exact)
  quality = metrics.precision_recall(narrow, exact)
  assert (quality.precision.value, quality.recall.value) == (1, 1)


@pytest.mark.parametrize("pair", [(FEATURES, OTHER), (metrics.moments(FEATURES), OTHER), (1.0, 2.0)])
def test_a_distance_is_of_moments(pair):
  with pytest.raises(ValueError, match=r"a and b must be Moments, which .*moments makes"):
    metrics.frechet_distance(*pair)


PIXELS = np.random.default_rng(1).integers(0, 256, (4, 28, 28, 1), np.uint8)
PICTURES = {
  "in [0, 1]": PIXELS / np.float32(255),
  "in [-1, 1]": PIXELS / np.float32(127.5) - 1,
  "of 16 bits": PIXELS.astype(np.uint16) * 257,
  "signed": (PIXELS // 2).astype(np.int8),
  "truth": PIXELS > 99,
  "of half precision": PIXELS.astype(np.float16),
  "without channels": PIXELS[..., 0],
  "of five channels": PIXELS.repeat(5, axis=-1),
  "channels first": np.moveaxis(PIXELS, -1, 1),
}
LOOKS = {
  "classifier": classifier.extractor("digits").apply,
  "pytorch_fid": resize.pytorch_fid,
  "clean_fid": resize.clean_fid,
}


@pytest.mark.parametrize("kind", PICTURES)
@pytest.mark.parametrize("name", LOOKS)
def test_judges_look_at_bytes_alone(name, kind):
  with pytest.raises(ValueError, match="images must be"):
    LOOKS[name](PICTURES[kind])


def test_a_classifier_of_grey_images_takes_no_colour():
  with pytest.raises(ValueError, match=r"images must be uint8 .*\[B, H, W, 1\], got uint8\(4, 28, 28, 3\)"):
    LOOKS["classifier"](PIXELS.repeat(3, axis=-1))


@pytest.mark.parametrize("kind", ["in [0, 1]", "of 16 bits", "truth", "without channels"])
def test_batches_of_features_are_of_bytes(kind):
  with pytest.raises(ValueError, match="must be a non-empty u8"):
    list(gather(over_devices(lambda x: x), [PICTURES[kind]]))


@pytest.mark.parametrize("kind", ["in [0, 1]", "of 16 bits", "signed", "truth", "of half precision"])
def test_pictures_are_drawn_of_bytes(kind, tmp_path):
  for drawn in (plots.grid, plots.labelled, lambda x: plots.save_png(tmp_path / "x.png", x[0])):
    with pytest.raises(ValueError, match="u8"):
      drawn(PICTURES[kind])
  assert not list(tmp_path.iterdir())


NOT_INVERTED = {
  "bytes": (PIXELS, "images must be floating point in data units, got uint8"),
  "float64": (PIXELS / 127.5 - 1, "images must be a non-empty f32"),
  "bytes as float32": (PIXELS.astype(np.float32), r"images must be finite and in \[-1, 1\], got 0 to 255"),
  "NaN": (PICTURES["in [-1, 1]"] * np.float32("nan"), "images must be finite .*got nan"),
  "another size": (PICTURES["in [-1, 1]"][:, :-1], "images must be a non-empty f32"),
}


@pytest.mark.parametrize("kind", NOT_INVERTED)
def test_only_data_are_inverted(kind):
  model = from_network(lambda params, x, t: x * params, (28, 28, 1), params=np.float32(0.5))
  images, message = NOT_INVERTED[kind]
  with pytest.raises(ValueError, match=message):
    model.invert(images, steps=2)


NO_BYTES = {
  "int8": np.int8(PIXELS // 2), "uint16": np.uint16(PIXELS), "int64": np.int64(PIXELS), "truth": PIXELS > 9,
  "float16": np.float16(PIXELS), "complex": PIXELS + 1j, "a list": PIXELS.tolist(), "a number": 7,
  "big-endian": PIXELS.astype(">u2"), "bfloat16": jnp.asarray(PIXELS, jnp.bfloat16),
}  # fmt: skip


@pytest.mark.parametrize("kind", NO_BYTES)
def test_only_bytes_become_data_as_bytes(kind):
  with pytest.raises(ValueError, match="values must be uint8, got"):
    data.from_uint8(NO_BYTES[kind])


NO_DATA = {
  "int8": np.int8(PIXELS // 2), "bytes": PIXELS, "truth": PIXELS > 9, "complex": PIXELS + 1j,
  "a list": PIXELS.tolist(), "bytes on a device": jnp.asarray(PIXELS), "text": PIXELS.astype(str),
}  # fmt: skip


@pytest.mark.parametrize("kind", NO_DATA)
def test_only_floating_point_becomes_bytes(kind):
  with pytest.raises(ValueError, match="data must be floating point in data units"):
    data.to_uint8(NO_DATA[kind])


def test_arrays_that_are_traced_are_refused_too():
  for function, array in ((data.from_uint8, NO_BYTES["float16"]), (resize.pytorch_fid, PICTURES["truth"])):
    with pytest.raises(ValueError, match="must be uint8"):
      jax.eval_shape(function, array)
