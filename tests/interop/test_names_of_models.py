"""What is no model is said to be none, in a sentence, without asking the network."""

import pytest

import ddim_jax
from ddim_jax import interop


@pytest.mark.parametrize(
  "name",
  [
    "runs/my run",
    "a/b/c",
    "x",
    "/x/y",
    "./a/b",
    "~/a/b",
    "-a/b",
    "a/.b",
    "a//b",
    "runs/ü!",
    "a/b.pt",
    "../a",
  ],
)
def test_a_missing_path_is_no_id_of_the_hub(name):
  with pytest.raises((FileNotFoundError, ValueError), match=r"no such file or folder|not a local folder"):
    ddim_jax.load(name)
  if "b.pt" not in name:
    with pytest.raises(ValueError, match=r"is not a folder, nor OWNER/NAME|not a local folder"):
      interop.load_diffusers(name)


@pytest.mark.parametrize("name", ["a--b/c", "a/b..c", "a/b-"])
def test_what_the_hub_would_refuse(name):
  pytest.importorskip("huggingface_hub")
  with pytest.raises(ValueError, match="is not a folder, nor OWNER/NAME"):
    interop.load_diffusers(name)


def test_a_safetensors_file_is_no_pickle(tmp_path):
  (tmp_path / "x.safetensors").write_bytes(b"")
  with pytest.raises(ValueError, match=r"must be a .ckpt or .pth file, got .*ddim_jax.load reads"):
    interop.load_ddim(tmp_path / "x.safetensors")
