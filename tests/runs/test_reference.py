"""What a judge has seen of a data set is kept under a name made of all its pixels."""

import jax
import numpy as np
import pytest

from ddim_jax import data, metrics, models
from ddim_jax.runs import evaluation, quality

PIXELS = np.random.default_rng(0).integers(0, 256, (300, 4, 4, 1), np.uint8)


def source(pixels):
  return data.in_memory("the same name", pixels)


def changed(row):
  other = PIXELS.copy()
  other[row, 0, 0, 0] ^= 1
  return other


@pytest.fixture
def judge():
  """Looks at each image's first four pixels, and counts the images that it was shown."""
  shown = []

  def look(images):
    shown.append(len(images))
    return images.reshape(len(images), -1)[:, :4].astype(np.float32), np.ones((len(images), 2), np.float32)

  return quality.Judge("first pixels", "0" * 64, look), shown


@pytest.mark.parametrize(
  "other",
  [
    changed(1),
    changed(150),
    changed(299),
    PIXELS[::-1],
    PIXELS[:-1],
    PIXELS.reshape(300, 2, 8, 1),
    PIXELS[:, ::-1],
  ],
)
def test_any_other_pixel_is_another_reference(judge, other, tmp_path):
  seer, shown = judge
  first = quality.reference(source(PIXELS), seer, tmp_path)
  again = quality.reference(source(PIXELS.copy()), seer, tmp_path)
  assert sum(shown) == 300
  np.testing.assert_array_equal(first.moments.mean, again.moments.mean)
  found = quality.reference(source(np.ascontiguousarray(other)), seer, tmp_path)
  assert sum(shown) == 300 + len(other)
  expected = other.reshape(len(other), -1)[:, :4].mean(axis=0)
  np.testing.assert_allclose(found.moments.mean, expected, rtol=1e-6)


DAMAGE = {
  "cut": lambda kept: kept.write_bytes(kept.read_bytes()[:200]),
  "empty": lambda kept: kept.write_bytes(b""),
  "text": lambda kept: kept.write_text("no archive"),
  "flipped": lambda kept: kept.write_bytes(bytes(b ^ (i == 300) for i, b in enumerate(kept.read_bytes()))),
  "of other arrays": lambda kept: np.savez(kept, count=3),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_reference_is_made_again(judge, damage, tmp_path):
  seer, shown = judge
  first = quality.reference(source(PIXELS), seer, tmp_path)
  (kept,) = tmp_path.iterdir()
  DAMAGE[damage](kept)
  for _ in range(2):
    again = quality.reference(source(PIXELS), seer, tmp_path)
    np.testing.assert_array_equal(first.moments.scatter, again.moments.scatter)
  assert sum(shown) == 2 * 300


@pytest.mark.parametrize(
  "other", [{"name": "FID"}, {"name": "FID (clean-fid resizing)"}, {"sha256": "1" * 64}, {"sha256": ""}]
)
def test_another_judge_has_another_reference(judge, other, tmp_path):
  seer, shown = judge
  quality.reference(source(PIXELS), seer, tmp_path)
  quality.reference(source(PIXELS), seer._replace(**other), tmp_path)
  assert sum(shown) == 2 * 300
  assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.slow
def test_a_model_of_nan_is_never_the_best(tmp_path):
  pixels = np.random.default_rng(0).integers(0, 256, (200, 8, 8, 1), np.uint8)
  model = models.from_network(lambda params, x, t: x * params, (8, 8, 1), params=np.float32(0.5))
  judged = evaluation.evaluator(model, source(pixels), folder=tmp_path, num=100, name="digits", decays=(0.5,))
  found = judged(np.float32("nan"), (np.float32(0.5),))
  assert found["frechet"] == np.inf
  assert np.isfinite(found["frechet_0.5"])


@pytest.mark.slow
def test_hosts_share_an_evaluation(tmp_path, monkeypatch):
  """Two processes are simulated, one after the other: what each has seen is kept instead of exchanged."""
  pixels = np.random.default_rng(0).integers(0, 256, (200, 8, 8, 1), np.uint8)
  model = models.from_network(lambda params, x, t: x * params, (8, 8, 1), params=np.float32(0.5))
  seen = []
  monkeypatch.setattr(metrics, "merge_hosts", lambda moments: seen.append(moments) or moments)
  for process, count in ((0, 1), (0, 2), (1, 2)):
    monkeypatch.setattr(jax, "process_index", lambda process=process: process)
    monkeypatch.setattr(jax, "process_count", lambda count=count: count)
    judged = evaluation.evaluator(model, source(pixels), folder=tmp_path, num=100, name="digits")
    judged(np.float32(0.5), ())
  alone, *parts = seen
  assert [part.num for part in parts] == [52, 48]  # 13 for each of four devices
  merged = metrics.merge(*parts)
  assert merged.num == alone.num == 100
  np.testing.assert_allclose(merged.mean, alone.mean, rtol=1e-4, atol=1e-5)
