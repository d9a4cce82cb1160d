"""Files of improved-diffusion and guided-diffusion: against their forward pass in torch, random weights."""

import jax
import numpy as np
import pytest

import ddim_jax
from ddim_jax import interop
from ddim_jax.interop import adm, adm_configs
from tests.parity import relative

torch = pytest.importorskip("torch", reason="parity is measured against torch")

from tests.oracles_adm import Adm, Weights  # noqa: E402

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
  return x, np.array([1, 700]), None if network.classes is None else np.array([3, 7])


def saved(path, network, size=16):
  """A file of a network's random weights, and its weights; what it asks for is drawn in a forward pass."""
  weights = Weights()
  x, t, labels = example(network, size)
  network(weights, x, t, labels)
  torch.save(weights.tensors, path)
  return weights


@pytest.mark.parametrize("name", NETWORKS)
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
  assert loaded.schedule.T == flags.get("diffusion_steps", 1000)
