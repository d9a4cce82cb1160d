"""Files of improved-diffusion and guided-diffusion: against their forward pass in torch, random weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ddim_jax
from ddim_jax import interop, runs
from ddim_jax.interop import adm, adm_configs
from tests import oracles
from tests.helpers import slow_but

torch = pytest.importorskip("torch", reason="parity is measured against torch")

from tests.oracles_adm import Adm, Weights  # noqa: E402
from tests.parity import relative  # noqa: E402

COSINE = {"diffusion_steps": 4000, "noise_schedule": "cosine"}
NETWORKS = {
  "improved CIFAR-10": (Adm(multipliers=(1, 2), rates=(1, 2)), COSINE | {"rescale_timesteps": True}),
  "improved ImageNet-64": (Adm(multipliers=(1, 2, 3), rates=(2, 4), classes=10), COSINE),
  "improved LSUN, without convolutions that resize": (
    Adm(rates=(), heads=1, scale_shift=False, conv_resample=False, out=3, blocks=2),
    {"num_heads": 1},
  ),
  "guided 64": (
    Adm(multipliers=(2, 3), head_channels=32, new_order=True, updown=True, classes=10),
    {"num_head_channels": 32, "use_new_attention_order": True, "noise_schedule": "cosine"},
  ),
  "guided 128": (Adm(updown=True, classes=10), {"num_heads": 4}),
  "guided 256, unconditional": (
    Adm(multipliers=(1, 1, 2), rates=(2, 4), head_channels=32, updown=True),
    {"num_head_channels": 32},
  ),
  "guided 512": (
    Adm(channels=64, multipliers=(0.5, 1), head_channels=32, updown=True, classes=10),
    {"num_head_channels": 32},
  ),
}


def example(network, size=16):
  """Random images, levels and labels."""
  rng = np.random.default_rng(1)
  x = rng.standard_normal((2, size, size, 3)).astype(np.float32)
  return x, np.array([1, 700]), None if network.classes is None else np.array([1, 0])


def saved(path, network, size=16):
  """A file of a network's random weights, and its weights; what it asks for is drawn in a forward pass."""
  weights = Weights()
  x, t, labels = example(network, size)
  network(weights, x, t, labels)
  torch.save(weights.tensors, path)
  return weights


@pytest.mark.parametrize("name", slow_but(lambda name: name == "guided 64", NETWORKS))
def test_networks_of_guided_diffusion(name, tmp_path):
  network, flags = NETWORKS[name]
  weights = saved(tmp_path / "model.pt", network)
  loaded = interop.load_adm(tmp_path / "model.pt", size=16, flags=flags)
  x, t, labels = example(network)
  scale = 1000 / 4000 if flags.get("rescale_timesteps") else 1
  expected = network(weights, x, (t - 1) * scale, labels)

  @jax.jit
  def outputs(variables, x, t):
    given = loaded.inputs(loaded.schedule, x, t)
    return loaded.model.apply(variables, *given, labels)

  output = outputs(loaded.variables, x, t)
  assert output.shape == (2, 16, 16, network.out)
  assert relative(output, expected) < 2e-5
  assert flags.get("diffusion_steps", 1000) == loaded.schedule.T


_GUIDED = {"scale_shift": True, "updown": True}
_64 = Adm(192, (1, 2, 3, 4), 3, (2, 4, 8), classes=1000, **_GUIDED)
_256 = Adm(256, (1, 1, 2, 2, 4, 4), 2, (8, 16, 32), classes=1000, **_GUIDED)
COSINE_4000 = COSINE | {"num_heads": 4, "num_head_channels": -1}
PUBLISHED = {
  "cifar10_uncond_50M": (
    Adm(128, (1, 2, 2, 2), 3, (2, 4)), 32, 53, COSINE_4000 | {"rescale_timesteps": True},
  ),
  "imagenet64_uncond_100M": (
    Adm(128, (1, 2, 3, 4), 3, (4, 8)), 64, 121, COSINE_4000 | {"rescale_timesteps": True},
  ),
  "imagenet64_cond_270M": (
    Adm(192, (1, 2, 3, 4), 3, (4, 8), classes=1000), 64, 273, COSINE_4000 | {"rescale_timesteps": False},
  ),
  "lsun_uncond_100M": (
    Adm(128, (1, 1, 2, 2, 4, 4), 2, (16,), scale_shift=False), 256, 114,
    {"num_heads": 1, "diffusion_steps": 1000, "noise_schedule": "linear"},
  ),
  "64x64_diffusion": (
    _64, 64, 296, {"num_head_channels": 64, "use_new_attention_order": True, "noise_schedule": "cosine"},
  ),
  "128x128_diffusion": (
    _256._replace(multipliers=(1, 1, 2, 3, 4), rates=(4, 8, 16)), 128, 422, {"num_head_channels": -1},
  ),
  "256x256_diffusion": (_256, 256, 554, {"num_head_channels": 64, "use_new_attention_order": False}),
  "256x256_diffusion_uncond": (_256._replace(classes=None), 256, 553, {"num_head_channels": 64}),
  "512x512_diffusion": (
    _256._replace(multipliers=(0.5, 1, 1, 2, 2, 4, 4), rates=(16, 32, 64)), 512, 559,
    {"num_head_channels": 64, "diffusion_steps": 1000, "noise_schedule": "linear"},
  ),
}  # fmt: skip
"""Networks as their READMEs describe them, with millions of parameters and options of those pages."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_are_known_by_the_shapes_of_their_weights(name):
  """Nothing but names and shapes: at their true widths they are too large to compute here."""
  network, size, millions, flags = PUBLISHED[name]
  shapes = network.shapes()
  assert round(sum(np.prod(shape) for shape in shapes.values()) / 1e6) == millions
  found, _ = adm.shape_of({name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()})
  assert found in adm_configs.PUBLISHED
  known = adm_configs.FLAGS | adm_configs.PUBLISHED[found]
  assert {"image_size": size} | flags == {key: known[key] for key in ("image_size", *flags)}


TINY = Adm(multipliers=(1,), rates=(), classes=2)
FLAGS = {"num_heads": 4, "image_size": 8}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
  """A file of a small network, its weights and the model that it becomes."""
  path = tmp_path_factory.mktemp("adm") / "tiny.pt"
  weights = saved(path, TINY, size=8)
  return path, weights, ddim_jax.load(path, flags=FLAGS)


def test_respaced_steps_of_the_learned_range(tiny):
  """Equations (10), (11) and (15) of arXiv:2102.09672, with the betas of the levels that are visited."""
  _, weights, model = tiny
  x, z = (np.random.default_rng(i).standard_normal((2, 8, 8, 3)).astype(np.float32) for i in (3, 4))
  labels = np.array([1, 0])
  solver = ddim_jax.ddpm(model.variance(label=labels))
  denoise = model.denoiser(label=labels)
  step = jax.jit(lambda t, s: solver.step(denoise, model.schedule, (), x, t, s, jnp.asarray(z))[0])
  for t, s in ((1000, 750), (334, 1), (1, 0)):
    eps, v = np.split(TINY(weights, x, np.full(2, t - 1), labels), 2, axis=-1)
    bar_t, bar_s = (oracles.linear_alpha_bar()[level] for level in (t, s))
    x0 = np.clip((x - np.sqrt(1 - bar_t) * eps) / np.sqrt(bar_t), -1, 1)
    expected, low = oracles.posterior(x0, x, bar_t, bar_s)
    if s > 0:
      beta, share = 1 - bar_t / bar_s, (v + 1) / 2
      expected = expected + np.exp((share * np.log(beta) + (1 - share) * np.log(low)) / 2) * z
    np.testing.assert_allclose(step(t, s), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_file_becomes_a_model_that_samples(tiny, tmp_path):
  """With DDIM and the learned range, by name; the same images from a file of ours."""
  _, _, model = tiny
  assert model.shape == (8, 8, 3)
  assert model.classes == ("0", "1")
  assert model.levels(4).tolist() == [751, 501, 251, 1, 0]  # "ddim4" there
  assert model.levels(4, "linspace").tolist() == [1000, 667, 334, 1, 0]  # "4" there
  assert np.abs(model.sample(2, steps=2)).max() <= 1
  model.save(tmp_path / "ours.safetensors", half=False)
  again, how = (
    ddim_jax.load(tmp_path / "ours.safetensors"),
    {"steps": 3, "solver": "ddpm-learned", "label": 1},
  )
  np.testing.assert_array_equal(again.sample(2, **how), model.sample(2, **how))


def test_what_such_a_model_cannot_do_is_said(tiny, tmp_path):
  path, weights, model = tiny
  with pytest.raises(ValueError, match=r"tell image_size, num_heads.*: give flags.*such as 'image_size 64"):
    ddim_jax.load(path)
  with pytest.raises(ValueError, match=r"flags must be some of image_size.*, got heads"):
    ddim_jax.load(path, flags={"heads": 4})
  with pytest.raises(ValueError, match="noise_schedule must be one of 'linear', 'cosine', got 'sqrt'"):
    ddim_jax.load(path, flags={"noise_schedule": "sqrt"})
  with pytest.raises(ValueError, match="diffusers has no UNetModel"):
    model.save(tmp_path / "folder")
  with pytest.raises(ValueError, match=r"teacher must not predict variances.*with the solver unipc2"):
    runs.distil(tmp_path / "students", model, np.zeros((4, 8, 8, 3), np.uint8))
  with pytest.raises(ValueError, match="ddpm-learned needs a model whose network also predicts variances"):
    ddim_jax.load("fashion_mnist").sample(1, solver="ddpm-learned")
  with pytest.raises(ValueError, match="leave out flags"):
    ddim_jax.load("fashion_mnist", flags=FLAGS)
  torch.save({"conv_in.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "ddim.ckpt")
  with pytest.raises(ValueError, match="leave out flags"):
    ddim_jax.load(tmp_path / "ddim.ckpt", flags=FLAGS)
  wide = weights.tensors | {"input_blocks.0.0.weight": torch.zeros(32, 6, 3, 3)}
  torch.save(wide, tmp_path / "upsampler.pt")
  with pytest.raises(ValueError, match="a small image to enlarge are not supported"):
    ddim_jax.load(tmp_path / "upsampler.pt", flags=FLAGS)
  half = {name: tensor for name, tensor in weights.tensors.items() if not name.startswith("output_blocks.")}
  torch.save(half, tmp_path / "classifier.pt")
  with pytest.raises(ValueError, match="weights of a classifier"):
    ddim_jax.load(tmp_path / "classifier.pt")


@pytest.mark.parametrize("updown", [True, False])
def test_a_classifier_of_guided_diffusion(updown, tmp_path):
  """Attention in both orders: the old one in its blocks, the new one where it gathers."""
  network = Adm(multipliers=(1, 2), blocks=2, head_channels=16, updown=updown, out=5)
  weights, (x, t, _) = Weights(), example(network)
  expected = network.classify(weights, x, t - 1)
  torch.save(weights.tensors, tmp_path / "classifier.pt")
  classifier, variables = interop.load_adm_classifier(tmp_path / "classifier.pt", head_dim=16)
  assert relative(jax.jit(classifier.apply)(variables, x, t), expected) < 2e-5
  with pytest.raises(ValueError, match="depth must make 6 input_blocks whole levels, got 3"):
    interop.load_adm_classifier(tmp_path / "classifier.pt", depth=3)
  with pytest.raises(
    ValueError, match=r"head_dim must divide the widths with attention, of \[32, 64\], got 48"
  ):
    interop.load_adm_classifier(tmp_path / "classifier.pt", head_dim=48)
  torch.save({"a": torch.zeros(1)}, tmp_path / "other.pt")
  with pytest.raises(ValueError, match="no classifier of guided-diffusion with attention pooling"):
    interop.load_adm_classifier(tmp_path / "other.pt")
