"""Options of guided-diffusion's scripts, in Python and in the commands."""

import re

import numpy as np
import pytest

import ddim_jax
from ddim_jax import checkpoints
from ddim_jax.commands import convert, export, inspect_model, sample_images, train_model
from ddim_jax.interop import adm_configs, adm_flags
from ddim_jax.interop.adm_configs import Shape

torch = pytest.importorskip("torch", reason="the files come from torch")

from tests.oracles_adm import Adm, Weights  # noqa: E402

SHAPE = Shape(256, (1, 1, 2, 2, 4, 4), 2, (8, 16, 32), True, True, True)
README = (
  "--attention_resolutions 32,16,8 --class_cond True --diffusion_steps 1000 --image_size 256"
  " --learn_sigma True --noise_schedule linear --num_channels 256 --num_head_channels 64 --num_res_blocks 2"
  " --resblock_updown True --use_fp16 True --use_scale_shift_norm True"
)
"""What the repository of guided-diffusion says to type for its 256x256 model."""


def test_a_line_of_their_readme():
  given = adm_flags.parse(README)
  chosen = adm_flags.completed(SHAPE, True, given, None, "x.pt")
  known = {"image_size": 256, "num_head_channels": 64, "diffusion_steps": 1000, "noise_schedule": "linear"}
  assert chosen == adm_configs.FLAGS | known
  equal = README.replace("--", "").replace("t ", "t=", 1)
  assert adm_flags.parse(equal) == given
  assert adm_flags.parse({"num_heads": "2", "dropout": "0.1"}) == {"num_heads": 2, "dropout": 0.1}
  assert adm_flags.parse(None) == {}


@pytest.mark.parametrize(
  ("flags", "message"),
  [
    ("num_heads", "names and values in turn, such as 'num_head_channels 64', got 'num_heads'"),
    ("heads 4", "flags must be some of image_size, .*resblock_updown, got heads"),
    ("num_heads four", "num_heads must be a positive integer, got 'four'"),
    ("num_heads 0", "num_heads must be a positive integer, got '0'"),
    ({"num_heads": True}, "num_heads must be a positive integer, got True"),
    ({"image_size": 64.0}, r"image_size must be a positive integer, got 64\.0"),
    ("dropout 1.5", r"dropout must be in \[0, 1\), got '1.5'"),
    ("class_cond maybe", "class_cond must be True or False, got 'maybe'"),
    ("noise_schedule sqrt", "noise_schedule must be one of 'linear', 'cosine', got 'sqrt'"),
    ("class_cond False", "class_cond is True by the weights of x.pt, got False"),
    ("learn_sigma False", "learn_sigma is True by the weights"),
    ("num_channels 128", "num_channels is 256 by the weights of x.pt, got 128"),
    ("channel_mult 1,2", r"channel_mult is \(1, 1, 2, 2, 4, 4\) by the weights"),
    ("channel_mult 1;2", "channel_mult must be numbers with commas between, got '1;2'"),
    (
      "image_size 256 attention_resolutions 16,8",
      r"attention_resolutions is rates \[8, 16, 32\] of the size",
    ),
    ("image_size 256 attention_resolutions 0", "attention_resolutions must be numbers"),
    (
      {},
      "x.pt has not the shape of a published network.*: give flags, .*'image_size 64 num_head_channels 64'",
    ),
  ],
)
def test_what_is_wrong_is_named(flags, message):
  with pytest.raises(ValueError, match=message):
    adm_flags.completed(SHAPE, True, adm_flags.parse(flags), None, "x.pt")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
  """A file of random weights of no published shape."""
  path = tmp_path_factory.mktemp("adm") / "tiny.pt"
  weights = Weights()  # drawn in a forward pass
  Adm(multipliers=(1,), rates=(), classes=2)(weights, np.zeros((1, 8, 8, 3), np.float32), [0], [0])
  torch.save(weights.tensors, path)
  return path


LINE = "image_size 8 num_heads 4"


@pytest.mark.slow
def test_the_commands_take_them(tiny, tmp_path, capsys):
  sample = lambda *words: sample_images.sample(sample_images.parse([str(tiny), *words]))
  sample("--flags", LINE, "--num", "2", "--steps", "2", "--out", str(tmp_path / "drawn.png"))
  assert (tmp_path / "drawn.png").is_file()
  sample(f"--flags=--{LINE}", "--num", "1", "--steps", "2", "--out", str(tmp_path / "again.png"))
  with pytest.raises(ValueError, match="give flags"):
    sample("--out", str(tmp_path / "none.png"))
  with pytest.raises(ValueError, match="got heads"):
    sample("--flags", "heads 4", "--out", str(tmp_path / "none.png"))
  assert inspect_model.inspect(str(tiny), flags=LINE) == 0
  assert "images 8x8x3" in capsys.readouterr().out
  with pytest.raises(ValueError, match=r"flags goes with a .*\.pt file, which fashion_mnist is not"):
    inspect_model.inspect("fashion_mnist", flags=LINE)
  export.export(str(tiny), tmp_path / "one.safetensors", flags=LINE)
  convert.convert(str(tiny), tmp_path / "run", to="checkpoint", flags=LINE)
  for place in (tmp_path / "one.safetensors", tmp_path / "run"):
    assert ddim_jax.load(place).shape == (8, 8, 3)


@pytest.mark.slow
def test_training_goes_on_from_such_a_file(tiny, tmp_path):
  """With its classes and its variances; the options are not needed once there is a checkpoint."""
  pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), np.uint8)
  np.savez(tmp_path / "data.npz", images=pixels, labels=np.arange(8) % 2)
  argv = ["folder", str(tmp_path / "data.npz"), "--from", str(tiny), "--workdir", str(tmp_path / "run")]
  argv += ["--batch-size", "8", "--sample-every", "0", "--save-every", "1", "--warmup", "0"]
  import jax

  with jax.numpy_dtype_promotion("standard"):
    assert train_model.train(train_model.parse([*argv, "--steps", "1", "--flags", LINE])) == 0
    before = checkpoints.restore_latest(tmp_path / "run" / "checkpoints").arrays
    assert train_model.train(train_model.parse([*argv, "--steps", "2"])) == 0
  after = checkpoints.restore_latest(tmp_path / "run" / "checkpoints").arrays
  moved = np.abs(after["params.conv_out.kernel"] - before["params.conv_out.kernel"]).reshape(-1, 6)
  assert (moved.max(axis=0) > 0).all()
  with pytest.raises(
    ValueError, match=re.escape(f"flags goes with from, whose file they describe, got '{LINE}'")
  ):
    train_model.train(train_model.parse(["digits", "--workdir", str(tmp_path / "other"), "--flags", LINE]))
