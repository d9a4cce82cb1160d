"""Weights from elsewhere in the programs: sampling, fine-tuning, converting; docs/weights.md row by row."""

import re
import shlex
import shutil

import jax
import numpy as np
import PIL.Image
import pytest

from ddim_jax import checkpoints
from ddim_jax.commands import convert, options, sample_images, train_model
from ddim_jax.models import load
from ddim_jax.runs import start

torch = pytest.importorskip("torch", reason="the weights come from torch")
diffusers = pytest.importorskip("diffusers", reason="the folders come from diffusers")
from tests.helpers import ROOT  # noqa: E402
from tests.parity import DOWN, TINY, UP, ddim_weights, relative, saved, torch_output  # noqa: E402

pytestmark = pytest.mark.usefixtures("promotion")

GREY = TINY | {
  "in_channels": 1, "out_channels": 1, "block_out_channels": [16], "down_block_types": DOWN,
  "up_block_types": UP,
}  # fmt: skip
SHORT = ["--steps", "2", "--batch-size", "8", "--sample-every", "0", "--save-every", "1"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  """What the table of docs/weights.md names: weights of both kinds, and photographs."""
  folder = tmp_path_factory.mktemp("place")
  saved(folder / "ddpm-cifar10-32", TINY)
  torch.save(ddim_weights((1, 2), 1, 0), folder / "model.ckpt")
  rng = np.random.default_rng(0)
  for kind in ("cats", "dogs"):
    (folder / "photos" / kind).mkdir(parents=True)
    for i in range(4):
      pixels = rng.integers(0, 256, (20, 24, 3), np.uint8)
      PIL.Image.fromarray(pixels).save(folder / "photos" / kind / f"{i}.png")
  return folder


def run(command, *more):
  """A program of the table in this process."""
  program, *argv = shlex.split(command.removeprefix("ddim "))
  argv += more
  if program == "train":
    return train_model.train(train_model.parse(argv))
  if program == "sample":
    return sample_images.sample(sample_images.parse(argv))
  return options.parse(convert.convert, argv, "ddim convert")


def train(argv):
  """``ddim train`` in this process."""
  return run("ddim train", *argv)


def sample(*argv):
  """``ddim sample`` in this process."""
  return run("ddim sample", *map(str, argv))


def rows():
  """``(what you have, what you type)`` of the table."""
  text = (ROOT / "docs" / "weights.md").read_text()
  table = re.search(r"\| What you have \| What you type \|\n\|[-|]+\|\n((?:\|.*\|\n)+)", text)[1]
  return re.findall(r"\| (.*?) \| `(ddim .*?)` \|\n", table)


@pytest.mark.slow
def test_every_row_of_the_table_of_weights(place, monkeypatch, capsys):
  """In the table's order, on small weights of the names it gives; only the number of steps is made small."""
  monkeypatch.chdir(place)
  commands = [command for _, command in rows()]
  assert len(commands) >= 6
  assert {shlex.split(command)[1] for command in commands} == {"sample", "train", "convert"}
  files = lambda: {(path, path.stat().st_mtime_ns) for path in place.rglob("*") if path.is_file()}
  for command in commands:
    before = files()
    small = {"sample": ["--num", "4", "--steps", "4"], "train": SHORT, "convert": []}
    assert not run(command, *small[command.split()[1]]), command
    assert files() - before, command
  exact = capsys.readouterr().out.count("largest difference after a round trip 0\n")
  assert exact == sum("ddim convert" in command for command in commands) == 3
  for index in place.glob("*/model_index.json"):
    diffusers.DDIMPipeline.from_pretrained(index.parent)


@pytest.mark.slow
def test_sampling_follows_the_files_unless_told_otherwise(tmp_path, capsys):
  scheduler = diffusers.DDIMScheduler(timestep_spacing="trailing", num_train_timesteps=100)
  saved(tmp_path / "in", TINY, scheduler)
  trained = load(tmp_path / "in")
  assert trained.shape == (8, 8, 3)
  assert trained.levels(4).tolist() == [100, 75, 50, 25, 0]
  assert trained.levels(4, "leading").tolist() == [76, 51, 26, 1, 0]
  short = ["--num", "4", "--steps", "4"]
  sample(tmp_path / "in", "--out", tmp_path / "a.png", *short)
  assert "levels 100 75 50 25 0" in capsys.readouterr().out
  assert (tmp_path / "a.png").is_file()
  assert load(tmp_path / "in", size=16).shape == (16, 16, 3)


@pytest.mark.slow
def test_fine_tuning_starts_from_the_weights_and_so_does_the_average(tmp_path):
  """Classes with a row to spare: the last stands for no class, and guidance is possible afterwards."""
  network = saved(tmp_path / "in", GREY | {"num_class_embeds": 11})
  source = load(tmp_path / "in").params
  argv = ["digits", "--from", str(tmp_path / "in"), "--workdir", str(tmp_path / "run"), "--ema", "0.9"]
  quiet = ["--batch-size", "8", "--sample-every", "0", "--warmup", "0", "--save-every", "1"]
  assert train([*argv, *quiet, "--steps", "1"]) == 0
  restored = checkpoints.restore_latest(tmp_path / "run" / "checkpoints")
  flat = checkpoints.flatten(source)
  moved = 0.0
  for name, before in flat.items():
    after, ema = restored.arrays[f"params.{name}"], restored.arrays[f"ema.{name}"]
    moved = max(moved, np.abs(after - before).max())
    np.testing.assert_allclose(ema, 0.9 * before + 0.1 * after, rtol=0, atol=1e-6)
  assert moved > 1e-4  # Adam moves each weight by about its learning rate, 2e-3

  # The source may go once there is a checkpoint; the same command goes on.
  shutil.move(tmp_path / "in", tmp_path / "gone")
  assert train([*argv, *quiet, "--steps", "2"]) == 0
  tuned = load(tmp_path / "run")
  assert tuned.step == 2
  assert len(tuned.classes) == 10
  assert tuned.config.imported["config"]["num_class_embeds"] == 11
  assert tuned.config.imported["config"]["sample_size"] == 8
  out = ["--num", "4", "--steps", "3", "--out", str(tmp_path / "guided.png")]
  sample(tmp_path / "run", "--class", "3", "--guidance", "2", *out)
  with pytest.raises(ValueError, match=r"began with --from .*/in and cannot go on without it"):
    train(["digits", "--workdir", str(tmp_path / "run"), *quiet])
  argv[2] = str(tmp_path / "gone")
  with pytest.raises(ValueError, match=r"began with --from .*/in and cannot go on with --from .*/gone"):
    train([*argv, *quiet])

  # Back to diffusers: the function of the averaged weights, in torch.
  convert.convert(str(tmp_path / "run"), tmp_path / "out")
  again = diffusers.UNet2DModel.from_pretrained(tmp_path / "out" / "unet").eval()
  x = np.random.default_rng(1).standard_normal((2, 8, 8, 1)).astype(np.float32)
  t, labels = np.array([3, 900]), np.array([7, 10])
  expected = torch_output(again, x, t, labels)
  apply = jax.jit(tuned.network.apply)
  assert relative(apply({"params": tuned.params}, x, t, labels), expected) < 2e-5
  assert relative(torch_output(network, x, t, labels), expected) > 1e-5


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
  """Two steps of a small unconditional run."""
  workdir = tmp_path_factory.mktemp("digits") / "run"
  small = ["--width", "8", "--groups", "4", "--multipliers", "1", "--attention"]
  assert train(["digits", "--workdir", str(workdir), *small, *SHORT]) == 0
  return workdir


@pytest.mark.slow
def test_a_run_can_start_from_another_and_learn_classes(digits_run, tmp_path, capsys):
  """The new table of classes is zero: at first, the network of before, whatever the label."""
  argv = ["digits", "--from", str(digits_run), "--workdir", str(tmp_path), "--conditional", *SHORT]
  still = ["--learning-rate", "1e-30", "--warmup", "0", "--ema", "0"]  # others are rounded
  assert train([*argv, *still]) == 0
  assert "11 rows, new" in capsys.readouterr().out
  before, after = load(digits_run), load(tmp_path)
  assert len(after.classes) == 10
  assert after.config.network.channels == 8  # the source's, not the preset's
  x, t = np.ones((2, 8, 8, 1), np.float32), np.array([3, 900])
  labels = np.array([2, 10])
  apply = jax.jit(
    lambda model, params, *labels: model.apply({"params": params}, x, t, *labels), static_argnums=0
  )
  np.testing.assert_array_equal(
    apply(after.network, after.params, labels), apply(before.network, before.params)
  )


@pytest.mark.slow
def test_a_run_that_began_otherwise_is_not_taken_for_one_from_weights(digits_run, tmp_path):
  argv = ["digits", "--from", str(tmp_path), "--workdir", str(digits_run), *SHORT]
  with pytest.raises(ValueError, match="was not given a --from and cannot go on with --from"):
    train(argv)


@pytest.mark.slow
@pytest.mark.parametrize("to", ["diffusers", "checkpoint"])
def test_runs_convert_exactly(digits_run, tmp_path, to, capsys):
  convert.convert(str(digits_run), tmp_path / "out", to=to)
  assert "largest difference after a round trip 0\n" in capsys.readouterr().out
  before, after = load(digits_run), load(tmp_path / "out")
  jax.tree.map(np.testing.assert_array_equal, after.params, before.params)
  np.testing.assert_allclose(after.schedule.log_snr, before.schedule.log_snr, rtol=1e-6)
  x, t = np.ones((2, 8, 8, 1), np.float32), np.array([3, 900])
  apply = jax.jit(lambda network, params: network.apply({"params": params}, x, t), static_argnums=0)
  np.testing.assert_array_equal(apply(after.network, after.params), apply(before.network, before.params))
  with pytest.raises(ValueError, match="not an empty folder"):
    convert.convert(str(digits_run), tmp_path / "out", to=to)


def test_convert_writes_a_pipeline_and_reports_the_round_trip(tmp_path, capsys):
  folder = tmp_path / "in"
  network = saved(folder, TINY)
  convert.convert(str(folder), tmp_path / "out")
  report = capsys.readouterr().out
  assert "largest difference after a round trip 0" in report
  assert "down_0_block_0/conv1/kernel" in report and "down_blocks.0.resnets.0.conv1.weight" in report
  again = diffusers.DDIMPipeline.from_pretrained(tmp_path / "out").unet.state_dict()
  for key, value in network.state_dict().items():
    np.testing.assert_array_equal(value.numpy(), again[key].numpy())
  with pytest.raises(ValueError, match="not an empty folder"):
    convert.convert(str(folder), tmp_path / "out")


def test_an_imported_network_as_one_file(tmp_path):
  saved(tmp_path / "in", TINY)
  trained = load(tmp_path / "in")
  trained.save(tmp_path / "model.safetensors")
  again = load(tmp_path / "model.safetensors")
  assert again.network == trained.network
  assert again.config == trained.config


@pytest.mark.parametrize(
  ("argv", "message"),
  [
    (["model.ckpt"], "give size"),
    (["model.ckpt", "--step", "3"], "leave out step"),
    (["ddpm-cifar10-32", "--ema", "0.9"], "leave out step and ema"),
    (["ddpm-cifar10-32", "--reconstruct"], "give data"),
    (["ddpm-cifar10-32", "--class", "1"], "needs a conditional model"),
    (["nowhere"], "no such file or folder"),
  ],
)
def test_what_does_not_fit_the_source_is_one_sentence(place, monkeypatch, argv, message):
  monkeypatch.chdir(place)
  with pytest.raises((ValueError, FileNotFoundError), match=message):
    sample(*argv)


def test_images_that_do_not_fit_the_network_are_refused(tmp_path):
  saved(tmp_path / "grey", GREY | {"num_class_embeds": 3})
  saved(tmp_path / "colour", TINY)
  for name, more, message in (
    ("colour", [], "from 3 to 3 channels; here images have 1"),
    ("grey", [], "conditional on 3 classes.*got 10"),
    ("colour", ["--conditional"], "conditional does not go with an imported network"),
  ):
    argv = ["digits", "--from", str(tmp_path / name), "--workdir", str(tmp_path / "run"), *more, *SHORT]
    with pytest.raises(ValueError, match=message):
      train(argv)


def test_start_refuses_weights_of_another_shape():
  with pytest.raises(ValueError, match=r"conv\.kernel is"):
    start.fill_in({"conv": {"kernel": np.zeros((2, 2))}}, {"conv": {"kernel": np.zeros((2, 3))}})
