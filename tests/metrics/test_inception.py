"""The FID's Inception network with random weights, against the published architecture in torch calls."""

import hashlib

import jax
import numpy as np
import pytest

from ddim_jax import metrics
from ddim_jax.metrics import inception, inception_weights, resize

torch = pytest.importorskip("torch", reason="the published architecture is written in torch")
import torch.nn.functional as F  # noqa: E402
from safetensors.torch import save_file  # noqa: E402


class Oracle:
  """The network as functional calls; makes its random weights where it first needs them."""

  def __init__(self):
    self.weights, self.random = {}, torch.Generator().manual_seed(0)

  def _draw(self, *shape):
    return torch.randn(shape, generator=self.random)

  def conv(self, x, name, width, kernel, stride=1, padding=0):
    key, w = f"{name}.conv.weight", self.weights
    kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
    if key not in w:
      fan_in = x.shape[1] * kernel[0] * kernel[1]
      w[key] = self._draw(width, x.shape[1], *kernel) * (2 / fan_in) ** 0.5
      w[f"{name}.bn.weight"] = 1 + 0.1 * self._draw(width)
      w[f"{name}.bn.bias"] = 0.1 * self._draw(width)
      w[f"{name}.bn.running_mean"] = 0.1 * self._draw(width)
      w[f"{name}.bn.running_var"] = (1 + 0.2 * self._draw(width)).abs()
      w[f"{name}.bn.num_batches_tracked"] = torch.tensor(1)
    x = F.conv2d(x, w[key], stride=stride, padding=padding)
    statistics = (w[f"{name}.bn.{k}"] for k in ("running_mean", "running_var", "weight", "bias"))
    return F.relu(F.batch_norm(x, *statistics, eps=0.001))

  def a(self, x, n, pool):
    c = self.conv
    one = c(x, f"{n}.branch1x1", 64, 1)
    five = c(c(x, f"{n}.branch5x5_1", 48, 1), f"{n}.branch5x5_2", 64, 5, padding=2)
    three = c(c(x, f"{n}.branch3x3dbl_1", 64, 1), f"{n}.branch3x3dbl_2", 96, 3, padding=1)
    three = c(three, f"{n}.branch3x3dbl_3", 96, 3, padding=1)
    mean = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    return torch.cat([one, five, three, c(mean, f"{n}.branch_pool", pool, 1)], 1)

  def b(self, x, n):
    c = self.conv
    double = c(c(x, f"{n}.branch3x3dbl_1", 64, 1), f"{n}.branch3x3dbl_2", 96, 3, padding=1)
    parts = [c(x, f"{n}.branch3x3", 384, 3, 2), c(double, f"{n}.branch3x3dbl_3", 96, 3, 2)]
    return torch.cat([*parts, F.max_pool2d(x, 3, 2)], 1)

  def c(self, x, n, width):
    c = self.conv
    seven = c(x, f"{n}.branch7x7_1", width, 1)
    seven = c(seven, f"{n}.branch7x7_2", width, (1, 7), padding=(0, 3))
    seven = c(seven, f"{n}.branch7x7_3", 192, (7, 1), padding=(3, 0))
    double = c(x, f"{n}.branch7x7dbl_1", width, 1)
    double = c(double, f"{n}.branch7x7dbl_2", width, (7, 1), padding=(3, 0))
    double = c(double, f"{n}.branch7x7dbl_3", width, (1, 7), padding=(0, 3))
    double = c(double, f"{n}.branch7x7dbl_4", width, (7, 1), padding=(3, 0))
    double = c(double, f"{n}.branch7x7dbl_5", 192, (1, 7), padding=(0, 3))
    mean = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    return torch.cat([c(x, f"{n}.branch1x1", 192, 1), seven, double, c(mean, f"{n}.branch_pool", 192, 1)], 1)

  def d(self, x, n):
    c = self.conv
    three = c(c(x, f"{n}.branch3x3_1", 192, 1), f"{n}.branch3x3_2", 320, 3, 2)
    seven = c(c(x, f"{n}.branch7x7x3_1", 192, 1), f"{n}.branch7x7x3_2", 192, (1, 7), padding=(0, 3))
    seven = c(seven, f"{n}.branch7x7x3_3", 192, (7, 1), padding=(3, 0))
    return torch.cat([three, c(seven, f"{n}.branch7x7x3_4", 192, 3, 2), F.max_pool2d(x, 3, 2)], 1)

  def e(self, x, n, pool):
    c = self.conv
    three = c(x, f"{n}.branch3x3_1", 384, 1)
    double = c(c(x, f"{n}.branch3x3dbl_1", 448, 1), f"{n}.branch3x3dbl_2", 384, 3, padding=1)
    return torch.cat([
      c(x, f"{n}.branch1x1", 320, 1),
      c(three, f"{n}.branch3x3_2a", 384, (1, 3), padding=(0, 1)),
      c(three, f"{n}.branch3x3_2b", 384, (3, 1), padding=(1, 0)),
      c(double, f"{n}.branch3x3dbl_3a", 384, (1, 3), padding=(0, 1)),
      c(double, f"{n}.branch3x3dbl_3b", 384, (3, 1), padding=(1, 0)),
      c(pool, f"{n}.branch_pool", 192, 1),
    ], 1)  # fmt: skip

  @torch.no_grad()
  def __call__(self, images):
    """``u8[B, H, W, 3]`` to features and logits, as pytorch-fid scales and resizes."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    x = 2 * F.interpolate(x, (299, 299), mode="bilinear", align_corners=False) - 1
    c = self.conv
    x = c(c(x, "Conv2d_1a_3x3", 32, 3, 2), "Conv2d_2a_3x3", 32, 3)
    x = F.max_pool2d(c(x, "Conv2d_2b_3x3", 64, 3, padding=1), 3, 2)
    x = F.max_pool2d(c(c(x, "Conv2d_3b_1x1", 80, 1), "Conv2d_4a_3x3", 192, 3), 3, 2)
    x = self.a(self.a(self.a(x, "Mixed_5b", 32), "Mixed_5c", 64), "Mixed_5d", 64)
    x = self.c(self.b(x, "Mixed_6a"), "Mixed_6b", 128)
    x = self.c(self.c(self.c(x, "Mixed_6c", 160), "Mixed_6d", 160), "Mixed_6e", 192)
    x = self.d(x, "Mixed_7a")
    x = self.e(x, "Mixed_7b", F.avg_pool2d(x, 3, 1, 1, count_include_pad=False))
    x = self.e(x, "Mixed_7c", F.max_pool2d(x, 3, 1, 1))
    x = F.adaptive_avg_pool2d(x, 1).flatten(1)
    if "fc.weight" not in self.weights:
      self.weights |= {"fc.weight": self._draw(1008, 2048) / 45, "fc.bias": self._draw(1008)}
    return x.numpy(), F.linear(x, self.weights["fc.weight"], self.weights["fc.bias"]).numpy()


@pytest.fixture(scope="module")
def images():
  """Two sets of four images that differ: noise, and smooth ramps."""
  generator = np.random.default_rng(0)
  noise = generator.integers(0, 256, (4, 32, 32, 3), np.uint8)
  ramps = np.linspace(0, generator.integers(50, 255, (4, 3, 1)), 32, axis=1)[..., None]
  ramps = np.broadcast_to(ramps.transpose(0, 1, 3, 4, 2).reshape(4, 32, 1, 3), (4, 32, 32, 3))
  return np.concatenate([noise, ramps.astype(np.uint8)])


@pytest.fixture(scope="module")
def oracle(images):
  net = Oracle()
  return net, net(images)


@pytest.fixture(scope="module")
def ours(oracle, images, tmp_path_factory):
  folder = tmp_path_factory.mktemp("inception")
  torch.save(oracle[0].weights, folder / "weights.pth")
  digest = hashlib.sha256((folder / "weights.pth").read_bytes()).hexdigest()
  weights = inception_weights.load(folder / "weights.pth", sha256=digest, cache=folder)
  assert weights.sha256 == digest
  return folder, metrics.over_devices(inception.extractor(weights.params))(images)


@pytest.mark.slow
def test_features_and_logits_are_the_oracles(oracle, ours):
  for got, expected, width in zip(ours[1], oracle[1], (2048, 1008), strict=True):
    assert expected.shape == (8, width)
    assert expected.std(axis=0).max() > 0.01  # images can be told apart
    np.testing.assert_allclose(got, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_fid_is_the_oracles(oracle, ours):
  def gram_fid(x, y):
    """Through centred data instead of covariances, in float64."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    a, b = (x - x.mean(0)) / np.sqrt(len(x) - 1), (y - y.mean(0)) / np.sqrt(len(y) - 1)
    return (
      np.sum((x.mean(0) - y.mean(0)) ** 2) + np.sum(a**2) + np.sum(b**2) - 2 * np.linalg.norm(a @ b.T, "nuc")
    )

  theirs, features = oracle[1][0], ours[1][0]
  fid = metrics.frechet_distance(metrics.moments(features[:4]), metrics.moments(features[4:]))
  np.testing.assert_allclose(fid.value, gram_fid(theirs[:4], theirs[4:]), rtol=1e-3)


@pytest.mark.slow
def test_converted_weights_are_found_again(oracle, ours, images, monkeypatch):
  folder = ours[0]
  digest = hashlib.sha256((folder / "weights.pth").read_bytes()).hexdigest()
  monkeypatch.setattr(inception_weights, "convert", None)  # would fail if it were called
  weights = inception_weights.load(folder / "weights.pth", sha256=digest, cache=folder)
  kernel = oracle[0].weights["fc.weight"].numpy().T
  np.testing.assert_array_equal(weights.params["fc"]["kernel"], kernel)


@pytest.mark.slow
def test_another_file_is_refused(ours):
  folder = ours[0]
  with pytest.raises(ValueError, match=r"has sha256 \w+, expected 6726825d"):
    inception_weights.load(folder / "weights.pth", cache=folder)
  with pytest.raises(ValueError, match=r"must be one of \.pth"):
    inception_weights.load(folder / "weights.npz")


@pytest.mark.slow
def test_missing_and_misshapen_tensors_are_named(oracle, tmp_path):
  tensors = {name: t for name, t in oracle[0].weights.items() if "Mixed_7c.branch1x1" not in name}
  save_file(tensors, str(tmp_path / "short.safetensors"))
  with pytest.raises(ValueError, match="Mixed_7c_branch1x1"):
    inception_weights.load(tmp_path / "short.safetensors", cache=tmp_path)
  tensors = oracle[0].weights | {"fc.bias": torch.zeros(1000)}
  with pytest.raises(ValueError, match=r"fc.bias of shape \(1000,\), expected \(1008,\)"):
    inception_weights.convert({name: t.numpy() for name, t in tensors.items()})


@pytest.mark.parametrize("size", [28, 500])
def test_resizing_is_pytorch_fids(size):
  images = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), np.uint8)
  x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
  expected = F.interpolate(x, (299, 299), mode="bilinear", align_corners=False).permute(0, 2, 3, 1)
  atol = 2e-4 if jax.config.jax_enable_x64 else 2e-5  # places between pixels are more exact than torch's
  np.testing.assert_allclose(resize.pytorch_fid(images), 2 * expected.numpy() - 1, atol=atol)


@pytest.mark.parametrize("size", [28, 600])
def test_clean_resizing_is_a_smoothing_bicubic_filter_without_rounding(size):
  """torch's filter that smooths when it shrinks is pillow's (a = -1/2), in floating point."""
  images = np.random.default_rng(0).integers(0, 256, (1, size, size, 1), np.uint8)
  x = torch.from_numpy(images).permute(0, 3, 1, 2).float()
  expected = F.interpolate(x, (299, 299), mode="bicubic", antialias=True, align_corners=False)
  got = resize.clean_fid(images)
  assert got.shape == (1, 299, 299, 3)
  np.testing.assert_allclose(got[..., 1], expected[:, 0].clip(0, 255).numpy(), atol=0.01)
  np.testing.assert_array_equal(resize.centred(np.float32([0, 128, 255])), np.float32([-1, 0, 127 / 128]))


def test_images_of_other_shapes_are_refused():
  with pytest.raises(ValueError, match=r"got \(2, 8, 8, 4\)"):
    resize.pytorch_fid(np.zeros((2, 8, 8, 4), np.uint8))
