"""A network that compiles in a second, as a model with classes."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest

import ddim_jax
from ddim_jax.models import Model, from_network

NAMES = ("cup", "hat", "kite")


class Counted(NamedTuple):
  """A model, and how often its network was traced so far: one number, the length of the list."""

  model: Model
  traces: list


@pytest.fixture(scope="session")
def counted():
  """A function as a network: x_t times a number, and a shift by class; 6 x 8 grey pixels."""
  traces = []

  def network(params, x, t, labels):  # labels: 3 is none
    traces.append(1)
    shift = params["shift"][labels][:, None, None, None]
    level = jnp.reshape(jnp.asarray(t, jnp.float32), (-1, 1, 1, 1))
    return jnp.tanh(params["gain"] * x + shift) * jnp.cos(0.001 * level)

  params = {"gain": jnp.float32(0.9), "shift": jnp.asarray([-0.2, 0.1, 0.3, 0.0], jnp.float32)}
  model = from_network(network, (6, 8, 1), params=jax.device_get(params), classes=NAMES)
  return Counted(model.replace(null_label=3), traces)


@pytest.fixture(scope="session")
def small(tmp_path_factory):
  """A file with a small U-Net with random weights, 16 x 16 grey pixels, three classes."""
  unet = ddim_jax.UNet(
    channels=8, multipliers=(1,), blocks=1, attention=(), groups=4, out_channels=1, num_classes=len(NAMES)
  )
  params = unet.init(jax.random.key(0), jnp.zeros((1, 16, 16, 1)), jnp.array(1), jnp.zeros(1, jnp.int32))
  path = tmp_path_factory.mktemp("page") / "small.safetensors"
  from_network(unet, (16, 16, 1), params=jax.device_get(params["params"]), classes=NAMES).save(path)
  return path
