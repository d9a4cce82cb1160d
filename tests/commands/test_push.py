"""Models on a hub: what is uploaded, and that it comes back."""

import shutil

import jax
import numpy as np
import pytest

import ddim_jax
from ddim_jax import interop
from ddim_jax.commands.push import push
from ddim_jax.models import build, config

huggingface_hub = pytest.importorskip("huggingface_hub", reason="needs the extra hf")
NAME = "somebody/digits"


@pytest.fixture
def hub(tmp_path, monkeypatch):
  """A folder in place of the hub, which cannot be reached from tests: what is uploaded is copied there."""
  there = tmp_path / "hub"

  class Api:
    def create_repo(self, repo_id, *, private, exist_ok):
      assert exist_ok
      (there / repo_id).mkdir(parents=True)

    def upload_folder(self, *, repo_id, folder_path, commit_message):
      assert commit_message
      shutil.copytree(folder_path, there / repo_id, dirs_exist_ok=True)

  monkeypatch.setattr(huggingface_hub, "HfApi", Api)
  monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **options: str(there / name))
  return there


def saved(folder, **changes):
  """A model of random weights as a file."""
  network = config.Network(8, (1,), 1, attention=(), dropout=0.0, groups=4, conditional=True)
  options = config.Config(network=network, diffusion=config.Diffusion(**changes))
  model = build.from_config(options, (8, 8, 1), ("cat", "dog"), step=3)
  model = model.replace(params=jax.device_get(model.init(jax.random.key(0))))
  model.save(folder / "mine.safetensors", half=False)
  return str(folder / "mine.safetensors"), model


@pytest.mark.slow
def test_a_model_comes_back_from_the_hub_with_its_classes_and_for_diffusers(hub, tmp_path):
  diffusers = pytest.importorskip("diffusers")
  where, model = saved(tmp_path)
  push(where, NAME)
  files = {str(path.relative_to(hub / NAME)) for path in (hub / NAME).rglob("*") if path.is_file()}
  assert {"README.md", "model.safetensors", "model_index.json", "samples.png"} < files
  again = ddim_jax.load(NAME)
  assert (again.classes, again.step) == (("cat", "dog"), 3)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(b, a, rtol=1e-3, atol=1e-6), model.params, again.params
  )
  theirs = diffusers.UNet2DModel.from_pretrained(hub / NAME / "unet")
  assert theirs.config.sample_size == 8
  text = (hub / NAME / "README.md").read_text()
  assert text.startswith("---\nlibrary_name: diffusers\n")
  for part in (f'ddim_jax.load("{NAME}")', "cat, dog", "(samples.png)", "3 updates of 128 images"):
    assert part in text


@pytest.mark.slow
def test_what_diffusers_cannot_say_is_pushed_for_this_project_alone(hub, tmp_path, capsys):
  where, _ = saved(tmp_path, schedule="flow", predict="flow")
  push(where, NAME, samples=False)
  assert {path.name for path in (hub / NAME).iterdir()} == {"README.md", "model.safetensors"}
  assert "no files for diffusers: " in capsys.readouterr().out
  assert ddim_jax.load(NAME).parameterisation is ddim_jax.FLOW
  assert "library_name: ddim_jax" in (hub / NAME / "README.md").read_text()


@pytest.mark.parametrize(
  ("kind", "pipeline"), [("EDMEulerScheduler", None), ("FlowMatchEulerDiscreteScheduler", "DDPMPipeline")]
)
def test_the_card_names_the_pipeline_that_asks_the_network_rightly(hub, tmp_path, kind, pipeline, capsys):
  network = {"sample_size": 8, "block_out_channels": [8], "layers_per_block": 1, "norm_num_groups": 4}
  network |= {"down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"]}
  model = build.from_pretrained(interop.describe(network, {"_class_name": kind}))
  model = model.replace(params=jax.device_get(model.init(jax.random.key(0))))
  model.save(tmp_path / "mine.safetensors")
  push(str(tmp_path / "mine.safetensors"), NAME, samples=False)
  assert (hub / NAME / "unet" / "config.json").is_file()
  text = (hub / NAME / "README.md").read_text()
  if pipeline is None:
    assert "Pipeline" not in text
    assert f"no pipeline of diffusers draws with a {kind}" in capsys.readouterr().out
  else:
    assert f"from diffusers import {pipeline}\n" in text
    assert f'images = {pipeline}.from_pretrained("{NAME}")' in text


def test_a_name_and_a_token_are_asked_for(tmp_path, monkeypatch):
  where, _ = saved(tmp_path)
  with pytest.raises(ValueError, match="repository must be OWNER/NAME, got 'digits'"):
    push(where, "digits")
  monkeypatch.setenv("HF_HUB_OFFLINE", "1")
  monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
  with pytest.raises(ValueError, match=r"was not written|needs a token"):
    push(where, NAME, samples=False)
