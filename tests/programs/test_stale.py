"""What was made before is taken for done only where the same would come out again."""

import dataclasses

import jax
import numpy as np
import pytest
from PIL import Image

from ddim_jax.commands.sample_images import Args
from ddim_jax.models import build
from ddim_jax.models.config import Config, Data, Diffusion, Network
from experiments.paper import cells, study

NETWORK = Network(channels=8, multipliers=(1,), blocks=1, attention=(), groups=4, dropout=0.0)
NOISE = Diffusion(levels=12, predict="v")


@pytest.fixture
def photos(tmp_path):
  for i in range(9):
    Image.fromarray(np.full((8, 8), 20 * i, np.uint8)).save(tmp_path / f"{i}.png")
  return tmp_path


def model(photos, network=NETWORK, diffusion=NOISE, shape=(8, 8, 1), **data):
  config = Config(Data(f"folder:{photos}", channels=1, **data), network, diffusion)
  made = build.from_config(config, shape)
  return made.replace(params=jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), made.template()))


def settings(trained, folder, seed=0, test=8):
  task = study.Task(trained, folder, "uniform", seed, 2, None, False)
  plan = cells.plan(task, (2,), (0.0,), (2,), 9, 9, test, 4)
  return {name: cell.settings() for name, cell in plan.items()}


OTHERS = {
  "schedule": lambda photos: model(photos, diffusion=dataclasses.replace(NOISE, schedule="cosine")),
  "levels": lambda photos: model(photos, diffusion=dataclasses.replace(NOISE, levels=13)),
  "prediction": lambda photos: model(photos, diffusion=dataclasses.replace(NOISE, predict="x0")),
  "zero SNR": lambda photos: model(photos, diffusion=dataclasses.replace(NOISE, zero_terminal_snr=True)),
  "groups": lambda photos: model(photos, network=dataclasses.replace(NETWORK, groups=2)),
  "precision": lambda photos: model(photos, network=dataclasses.replace(NETWORK, dtype="bfloat16")),
  "size": lambda photos: model(photos, shape=(16, 16, 1)),
  "shape": lambda photos: model(photos, shape=(8, 16, 1)),
}
"""Models with the same weights that draw other images."""


@pytest.mark.parametrize("name", OTHERS)
def test_the_same_weights_in_another_model_are_another_model(name, photos):
  before, after = model(photos), OTHERS[name](photos)
  jax.tree.map(np.testing.assert_array_equal, before.params, after.params)
  old, new = settings(before, photos), settings(after, photos)
  assert old.keys() == new.keys()
  assert not [cell for cell in old if old[cell] == new[cell]]
  crc = lambda trained: Args().settings(trained, trained.levels(2))["model_crc32"]
  assert crc(before) != crc(after)
  assert crc(before) == crc(model(photos))


PICTURES = {
  "one pixel": lambda photos: Image.fromarray(np.eye(8, dtype=np.uint8)).save(photos / "0.png"),
  "exchanged": lambda photos: [
    (photos / a).rename(photos / b) for a, b in (("0.png", "x.png"), ("1.png", "0.png"))
  ],
  "one more": lambda photos: Image.fromarray(np.eye(8, dtype=np.uint8)).save(photos / "00.png"),
}


@pytest.mark.parametrize("name", PICTURES)
def test_other_pictures_under_the_same_name_are_noticed(name, photos):
  before = settings(model(photos), photos)
  assert before == settings(model(photos), photos)
  PICTURES[name](photos)
  after = settings(model(photos), photos)
  changed = {cell for cell in before if before[cell] != after[cell]}
  assert changed == {"levels", "bits", "table2/S=2", "table1/eta=0/S=2", "table1/sigma-hat/S=2"}


def test_other_options_of_the_data_are_another_model(photos):
  before = settings(model(photos), photos)
  for options in ({"image_size": "8"}, {"crop": "6"}, {"flip": True}, {"fit": "pad"}):
    after = settings(model(photos, **options), photos)
    assert not [cell for cell in before if before[cell] == after[cell]], options
  assert before["levels"] != settings(model(photos), photos, test=7)["levels"]
  assert before["figure6"] != settings(model(photos), photos, seed=1)["figure6"]
