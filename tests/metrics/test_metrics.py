"""Distances between sets of images, against scipy, closed forms and brute force."""

import itertools
import re

import jax
import numpy as np
import pytest
import scipy.linalg
import scipy.special
import scipy.stats

from ddim_jax import metrics
from ddim_jax.data import load_builtin
from ddim_jax.metrics import classifier, resize
from ddim_jax.metrics.extract import gather, over_devices
from experiments.studies import train_classifier as program


def features(seed, num, size, scale=1.0):
  """Correlated normal features with a mean."""
  generator = np.random.default_rng(seed)
  return scale * (
    generator.normal(size=(num, size)) @ generator.normal(size=(size, size)) + generator.normal(size=size)
  )


def scipy_frechet(x, y):
  """The published formula with scipy's root of the product."""
  A, B = (np.atleast_2d(np.cov(z, rowvar=False)) for z in (x, y))
  root = np.real(scipy.linalg.sqrtm(A @ B))
  return np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(A + B - 2 * root)


@pytest.mark.parametrize("size", [1, 3, 40])
def test_frechet_distance_is_scipys(size):
  x, y = features(0, 300, size), features(1, 200, size, 1.3)
  value = metrics.frechet_distance(metrics.moments(x), metrics.moments(y))
  np.testing.assert_allclose(value.value, scipy_frechet(x, y), rtol=1e-6)
  assert str(value).endswith("(N = 200)")


def test_frechet_distance_of_covariances_without_full_rank():
  """Fewer images than features; the root's trace is the nuclear norm of the centred data's product."""
  x, y = features(0, 20, 60), features(1, 12, 60)
  a, b = x - x.mean(0), y - y.mean(0)
  nuclear = np.linalg.norm(a @ b.T, "nuc") / np.sqrt(19 * 11)
  spread = np.sum(a**2) / 19 + np.sum(b**2) / 11
  expected = np.sum((x.mean(0) - y.mean(0)) ** 2) + spread - 2 * nuclear
  X, Y = metrics.moments(x), metrics.moments(y)
  np.testing.assert_allclose(metrics.frechet_distance(X, Y).value, expected, rtol=1e-9)
  np.testing.assert_allclose(metrics.frechet_distance(X, X).value, 0, atol=1e-9 * spread)


def test_frechet_distance_of_sets_that_do_not_vary():
  point = lambda at: metrics.moments(np.full((4, 3), at))
  assert metrics.frechet_distance(point(1.0), point(3.0)).value == pytest.approx(12)


def test_moments_merge_to_those_of_the_union():
  x = features(2, 90, 5) + 1e4  # a naive sum of squares would lose eight digits
  total = None
  for part in np.split(x, [1, 20, 21, 60]):
    total = metrics.merge(total, metrics.moments(part))
  assert total.num == 90
  np.testing.assert_allclose(total.mean, x.mean(0), rtol=1e-14)
  np.testing.assert_allclose(total.covariance, np.cov(x, rowvar=False), rtol=1e-9)
  assert metrics.merge_hosts(total) is total


def test_merging_hosts_keeps_float64(monkeypatch):
  """What two processes gather is, here, simulated: the transport moves bytes."""
  a, b = metrics.moments(features(0, 30, 4)), metrics.moments(features(1, 20, 4))
  flat = [np.concatenate([[m.num], m.mean, m.scatter.ravel()]).view(np.uint8) for m in (a, b)]
  monkeypatch.setattr(jax, "process_count", lambda: 2)
  multihost = metrics.frechet.multihost_utils
  monkeypatch.setattr(multihost, "process_allgather", lambda own: np.stack([own, flat[1]]))
  merged, expected = metrics.merge_hosts(a), metrics.merge(a, b)
  assert merged.num == 50
  np.testing.assert_array_equal(merged.scatter, expected.scatter)


def brute_mmd(x, y):
  kernel = lambda a, b: (np.dot(a, b) / len(a) + 1) ** 3
  pairs = lambda z: np.mean([kernel(a, b) for a, b in itertools.permutations(z, 2)])
  return pairs(x) + pairs(y) - 2 * np.mean([kernel(a, b) for a in x for b in y])


def test_kernel_distance_is_the_sum_over_pairs():
  x, y = features(0, 12, 4), features(1, 9, 4)
  assert metrics.squared_mmd(x, y) == pytest.approx(brute_mmd(x, y), rel=1e-10)
  value = metrics.kernel_distance([x, x[:6]], [y, y[:5]])
  parts = [brute_mmd(x, y), brute_mmd(x[:6], y[:5])]
  assert value.value == pytest.approx(np.mean(parts))
  assert value.error == pytest.approx(np.std(parts, ddof=1))
  assert value.num == 9


def test_kernel_distance_is_unbiased():
  """Over many small subsets of one distribution the mean is 0 within its standard error."""
  x = np.random.default_rng(0).normal(size=(6000, 3))
  value = metrics.kernel_distance(
    metrics.subsets(x[:3000], 400, 30), metrics.subsets(x[3000:], 400, 30, seed=1)
  )
  assert abs(value.value) < 4 * value.error / 20
  assert value.num == 30


def test_subsets_do_not_repeat_a_feature():
  for subset in metrics.subsets(np.arange(10), 3, 10):
    assert sorted(subset) == list(range(10))


def test_inception_score_of_known_answers():
  sure = np.where(np.arange(40)[:, None] % 4 == np.arange(4), 60.0, 0.0)  # each class equally often, no doubt
  assert metrics.inception_score([metrics.score_sums(sure)]).value == pytest.approx(4)
  assert metrics.inception_score([metrics.score_sums(np.ones((10, 4)))]).value == pytest.approx(1)


def test_inception_score_is_the_mean_divergence():
  logits = np.random.default_rng(0).normal(size=(50, 6)) * 3
  p = scipy.special.softmax(logits, axis=1)
  expected = np.exp(np.mean([scipy.stats.entropy(row, p.mean(0)) for row in p]))
  total = None
  for part in np.split(logits, [7, 30]):
    total = metrics.merge_scores(total, metrics.score_sums(part))
  assert metrics.inception_score([total]).value == pytest.approx(expected)
  halves = [metrics.score_sums(logits[:25]), metrics.score_sums(logits[25:])]
  assert metrics.inception_score(halves).num == 50


def test_precision_and_recall_are_brute_force():
  a, b = features(0, 40, 2), features(0, 30, 2)[::-1] * 0.7 + 0.3

  def covered(points, centres, k):
    distance = lambda u, v: np.linalg.norm(u - v)
    radii = [sorted(distance(c, o) for o in centres)[k] for c in centres]
    return np.mean([any(distance(p, c) <= r for c, r in zip(centres, radii, strict=True)) for p in points])

  result = metrics.precision_recall(a, b, k=2)
  assert result.precision.value == pytest.approx(covered(b, a, 2))
  assert result.recall.value == pytest.approx(covered(a, b, 2))
  assert 0 < result.recall.value < 1


def test_a_collapsed_generator_has_precision_without_recall():
  data = np.random.default_rng(0).normal(size=(200, 2))
  collapsed = np.random.default_rng(1).normal(size=(200, 2)) * 0.01
  result = metrics.precision_recall(data, collapsed)
  assert result.precision.value > 0.95
  assert result.recall.value < 0.05


def test_reconstruction_error_is_on_the_scale_of_0_to_1():
  assert metrics.reconstruction_error(np.full((2, 3), -1.0), np.full((2, 3), 1.0)) == metrics.Value(1.0, 2)


def test_features_over_devices_of_any_number_of_images():
  images = np.random.default_rng(0).integers(0, 256, (10, 4, 4, 1), np.uint8)
  run = over_devices(lambda x: {"first": x[:, 0, 0, 0].astype(np.float32), "all": x})
  (out,) = gather(run, [images])
  np.testing.assert_array_equal(out["first"], images[:, 0, 0, 0])
  np.testing.assert_array_equal(out["all"], images)


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda: metrics.moments(np.ones(3)), "features must be a non-empty"),
    (lambda: metrics.moments(np.full((2, 2), np.nan)), "finite"),
    (lambda: metrics.merge(metrics.moments(np.ones((2, 2))), metrics.moments(np.ones((2, 3)))), "2 and of 3"),
    (lambda: metrics.frechet_distance(*[metrics.moments(np.ones((1, 2)))] * 2), "at least 2 images, got 1"),
    (lambda: metrics.squared_mmd(np.ones((1, 2)), np.ones((5, 2))), r"got \(1, 2\)"),
    (lambda: metrics.kernel_distance([], []), "no blocks"),
    (lambda: next(metrics.subsets(np.ones(3), 0)), "count must be at least 1"),
    (lambda: metrics.score_sums(np.ones(3)), "logits must be"),
    (lambda: metrics.inception_score([]), "no parts"),
    (lambda: metrics.precision_recall(np.ones((3, 2)), np.ones((9, 2))), "less than 3 features, got 3"),
    (lambda: metrics.precision_recall(np.ones((9, 2)), np.ones((9, 3))), "must be"),
    (lambda: metrics.reconstruction_error(np.ones((2, 3)), np.ones((2, 4))), "one shape"),
    (lambda: list(gather(len, [np.ones((2, 2, 2, 1))])), "got float64"),
    (lambda: classifier.extractor("cifar10"), "got 'cifar10'"),
  ],
)
def test_bad_input_is_named(call, message):
  with pytest.raises(ValueError, match=message):
    call()


def test_the_shipped_classifier_knows_digits(data_dir):
  """Every fifth digit was kept out of its training."""
  source = load_builtin("digits", "train", data_dir)
  images, labels = source.read(np.arange(0, source.size, 5))
  net = classifier.extractor("digits")
  vectors, logits = over_devices(net.apply)(images)
  assert vectors.shape == (360, classifier.FEATURES)
  assert np.mean(logits.argmax(-1) == labels) > 0.95
  assert net.name == "FD-classifier (digits)"


def test_shipped_weights_are_small():
  assert sum(path.stat().st_size for path in classifier.WEIGHTS.values()) < 1_000_000


@pytest.mark.slow
def test_the_training_program_learns(data_dir, tmp_path, capsys):
  options = {"data_dir": data_dir, "out": tmp_path / "c.safetensors", "steps": 60, "batch_size": 64}
  with jax.numpy_dtype_promotion("standard"):  # optax's bias correction
    program.train("digits", **options)
  said = capsys.readouterr().out
  assert "360 images" in said
  assert float(re.search(r"test accuracy ([\d.]+)%", said)[1]) > 50  # chance is 10
  assert (tmp_path / "c.safetensors").stat().st_size < 500_000


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("look", [resize.pytorch_fid, resize.clean_fid, classifier.extractor("digits").apply])
def test_only_bytes_are_looked_at(look, traced):
  """The same images as u8 and as u8 / 255 would have different features."""
  images = np.zeros((2, 28, 28, 1), np.uint8)
  for other in (images / np.float32(255), images.astype(np.int32), images.astype(np.float16)):
    with pytest.raises(ValueError, match="images must be uint8"):
      (jax.eval_shape if traced and look is not resize.clean_fid else lambda f, x: f(x))(look, other)


def test_reconstructions_are_floats_and_finite():
  images = np.zeros((2, 4, 4, 3), np.float32)
  with pytest.raises(ValueError, match="must be a non-empty floating-point"):
    metrics.reconstruction_error(images.astype(np.uint8), images)
  with pytest.raises(ValueError, match="must be finite"):
    metrics.reconstruction_error(images, images * np.nan)
