"""What the numbers of data mean, from the data set through the model to what is drawn."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import ddim_jax
from ddim_jax import data, models
from ddim_jax.runs import fit
from tests.helpers import random_variables

pytestmark = pytest.mark.usefixtures("promotion")

QUICK = {"batch_size": 8, "warmup": 0, "progress": False}


def gaussian(shape):
  """A model of data with mean 0 and variance 1: the best prediction of the noise is sigma times x_t."""
  sigma = jnp.asarray(ddim_jax.linear_schedule().sigma)
  network = lambda params, x, t: params["one"] * sigma[t].reshape(-1, *[1] * len(shape)) * x
  return models.from_network(network, shape, params={"one": np.float32(1)})


def shrunk(model, steps):
  """By how much so many steps of it shrink: each turns data and noise by an angle and leaves its cosine."""
  angles = np.arccos(np.asarray(model.schedule.alpha, np.float64)[model.levels(steps)])
  return np.prod(np.cos(np.diff(angles)))


LATENTS = np.random.default_rng(0).normal((5, -3), (2, 30), (64, 4, 4, 2)).astype(np.float32)


@pytest.mark.slow
def test_latents_come_back_with_their_own_mean_and_deviation(tmp_path):
  source = data.in_memory("latents", LATENTS, values="standardise")
  pictures = lambda values: np.repeat(values[..., :1] * 0 + 1, 3, axis=-1).repeat(2, axis=1)  # all white
  seen = []
  model = fit(
    tmp_path, gaussian((4, 4, 2)), source, steps=1, learning_rate=1e-9, sample_every=1,
    decode=lambda values: (seen.append(values), pictures(values))[1], **QUICK,
  )  # fmt: skip
  drawn = model.scaling.to_values(model.sample(256, steps=10))
  assert drawn.dtype == np.float32
  np.testing.assert_allclose(drawn.mean(axis=(0, 1, 2)), model.scaling.offset, atol=2)
  factor = shrunk(model, 10)  # and nothing is cut off
  np.testing.assert_allclose(drawn.std(axis=(0, 1, 2)) / factor, model.scaling.scale, rtol=0.06)
  (grid,) = (tmp_path / "samples").iterdir()
  with Image.open(grid) as picture:
    assert (picture.mode, np.asarray(picture).min()) == ("RGB", 255)
  assert (seen[0].shape, seen[0].dtype) == ((64, 4, 4, 2), np.float32)
  assert abs(seen[0][..., 1].std() / 30 - 1) < 0.2  # decode is given latents as they were
  loaded = ddim_jax.load(tmp_path, like=gaussian((4, 4, 2)))
  assert (loaded.scaling, loaded.decode) == (model.scaling, None)
  assert loaded.replace(decode=pictures).pictures(loaded.sample(2, steps=2)).shape == (2, 8, 4, 3)
  assert loaded.pictures(loaded.sample(2, steps=2)).shape == (2, 4, 4, 2)
  other = data.in_memory("latents", LATENTS + 1, values="standardise")
  with pytest.raises(ValueError, match=r"what the numbers of the data mean: .* in the checkpoint, .* now"):
    fit(tmp_path, gaussian((4, 4, 2)), other, steps=2, **QUICK)


@pytest.mark.slow
def test_vectors_train_and_come_back(tmp_path):
  vectors = np.random.default_rng(0).normal(7, (0.1, 1, 10), (64, 3)).astype(np.float32)
  model = fit(
    tmp_path, gaussian((3,)), data.in_memory("features", vectors, values="standardise"), steps=1,
    learning_rate=1e-9, sample_every=1, **QUICK,
  )  # fmt: skip
  drawn = model.scaling.to_values(model.sample(512, steps=10))
  np.testing.assert_allclose(drawn.std(axis=0) / shrunk(model, 10), vectors.std(axis=0), rtol=0.15)
  assert not (tmp_path / "samples").exists()
  with pytest.raises(ValueError, match=r"samples of shape \(3,\) are no pictures"):
    model.pictures(model.sample(2, steps=2))


def test_16_bit_pictures_stay_within_their_range(tmp_path):
  scans = np.random.default_rng(0).integers(100, 4000, (16, 4, 4, 1)).astype(np.uint16)
  network = ddim_jax.UNet(channels=4, multipliers=(1,), blocks=1, attention=(), groups=2, out_channels=1)
  source = data.in_memory("scans", scans, values=(0, 4095))
  params = random_variables(network, (2, 4, 4, 1))["params"]
  model = models.from_network(network, (4, 4, 1), params=params).replace(scaling=source.scaling)
  model.save(tmp_path / "m.safetensors")
  loaded = ddim_jax.load(tmp_path / "m.safetensors")
  assert loaded.scaling == source.scaling
  drawn = loaded.scaling.to_values(loaded.sample(2, steps=2))
  assert (drawn.dtype, drawn.min() >= 0, drawn.max() <= 4095) == (np.uint16, True, True)
  assert drawn.max() > 255
  with pytest.raises(ValueError, match="a folder of diffusers cannot say what the numbers of the data mean"):
    model.save(tmp_path / "folder")


def test_other_types_need_to_be_said():
  with pytest.raises(ValueError, match="values must be given for uint16"):
    fit("nowhere", gaussian((4, 4, 1)), np.zeros((8, 4, 4, 1), np.uint16), steps=1, **QUICK)
