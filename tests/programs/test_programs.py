"""The programs from end to end, in processes of their own where that could matter, on real digits."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from ddim_jax import checkpoints, load
from ddim_jax.commands import presets
from ddim_jax.models import build
from tests.helpers import ROOT, cifar_archive, likeness
from tests.programs.draw_floats import draw_floats

PROGRAM = "ddim_jax.__main__"
SMALL = ("--width", 16, "--multipliers", 1, "--attention", "--batch-size", 32)  # attention in the middle only


@pytest.fixture(scope="module")
def workdir(run, tmp_path_factory):
  """A run of 30 steps on digits."""
  folder = tmp_path_factory.mktemp("run")
  done = run(PROGRAM, "train", "digits", "--workdir", folder, "--steps", 30, "--warmup", 5, *SMALL)
  for part in (
    "1 x cpu",
    "parameters",
    "1,797 examples of 8x8x1",
    "classes     10:",
    "GFLOP",
    "step 0 of 30",
    "done: 30",
  ):
    assert part in done.stdout
  assert "images/s" in done.stderr
  return folder


def metrics(folder):
  return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def pixels(path):
  with Image.open(path) as image:
    return np.asarray(image).astype(int)


def test_30_steps_lower_the_loss(workdir):
  lines = metrics(workdir)
  assert [line["step"] for line in lines] == list(range(1, 31))
  losses = [line["loss"] for line in lines]
  assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
  assert any((workdir / "tensorboard").iterdir())


def test_a_restored_checkpoint_samples_the_same_images(workdir, run):
  """The training process drew its grid from memory; a new process draws it from the checkpoint."""
  run(PROGRAM, "sample", workdir, "--out", workdir / "again.png")
  np.testing.assert_array_equal(
    pixels(workdir / "samples" / "step_00000030.png"), pixels(workdir / "again.png")
  )


def test_a_new_process_makes_the_same_images_in_floating_point(workdir, tmp_path):
  """Weights in memory against the same weights saved, and restored by another process."""
  trained = load(workdir)
  moved = trained.replace(params=jax.tree.map(lambda p: p * 1.5, trained.params))
  saved = {"config": build.to_json(trained.config), "image": [8, 8, 1], "classes": []}
  with checkpoints.open_manager(tmp_path / "checkpoints") as manager:
    checkpoints.save(manager, 1, {"ema": moved.params}, saved)
  command = [sys.executable, "-m", "tests.programs.draw_floats", str(tmp_path), str(tmp_path / "x.npy")]
  subprocess.run(command, check=True, cwd=ROOT)
  np.testing.assert_allclose(draw_floats(moved), np.load(tmp_path / "x.npy"), atol=1e-6)


@pytest.mark.parametrize(("eta", "solver"), [(1, "ddim"), (0, "ddpm-large")])
def test_same_images_whatever_batch_size_and_number_of_devices(workdir, run, run_here, tmp_path, eta, solver):
  """One device, and four in this process; with noise in every step."""
  images = []
  for start, batch in ((run, 10), (run_here, 2)):
    out = tmp_path / f"{batch}.npz"
    options = ("--num", 10, "--steps", 5, "--eta", eta, "--solver", solver, "--batch-size", batch)
    start(PROGRAM, "sample", workdir, "--out", out, *options)
    images.append(np.load(out)["arr_0"])
  assert images[0].shape == (10, 8, 8, 1)
  assert np.abs(images[0].astype(int) - images[1]).max() <= 1  # one unit of rounding
  assert len(np.unique(images[0].reshape(10, -1), axis=0)) == 10


def test_numbered_pngs(workdir, run_here, tmp_path):
  options = (workdir, "--num", 5, "--steps", 3, "--out", tmp_path / "out")
  run_here(PROGRAM, "sample", *options)
  files = sorted((tmp_path / "out").glob("*.png"))
  before = [pixels(f) for f in files]
  files[1].unlink()
  run_here(PROGRAM, "sample", *options)
  for file, old in zip(files, before, strict=True):
    np.testing.assert_array_equal(pixels(file), old)
  done = run_here(PROGRAM, "sample", *options, "--eta", 1, status=2)
  assert "begun with eta 0.0, not 1.0" in done.stderr


def test_trajectory_interpolation_reconstruction(workdir, run_here, tmp_path):
  options = (workdir, "--steps", 10, "--num", 3, "--out")
  done = run_here(PROGRAM, "sample", *options, tmp_path / "t.png", "--trajectory")
  assert "levels 901 801 701 601 501 401 301 201 101 1 0" in done.stdout
  assert all((tmp_path / f"t{suffix}").stat().st_size > 1000 for suffix in (".png", ".gif", ".webp"))
  assert likeness(pixels(tmp_path / "t.png")[:24], "level 801") > 0.9
  run_here(PROGRAM, "sample", *options, tmp_path / "i.png", "--interpolate", "--eta", 0.5)
  assert pixels(tmp_path / "i.png").shape[1] > pixels(tmp_path / "i.png").shape[0]
  assert likeness(pixels(tmp_path / "i.png")[:24], "0.9") > 0.9  # a weight
  errors = []
  for refine in (0, 5):
    done = run_here(PROGRAM, "sample", *options, tmp_path / "r.png", "--reconstruct", "--refine", refine)
    errors.append(float(done.stdout.split("images in [0, 1]: ")[1].split()[0]))
  assert 0 < errors[1] < errors[0] < 0.1


def test_the_run_goes_on_and_another_configuration_is_refused(workdir, run, run_here):
  options = ("digits", "--workdir", workdir, "--warmup", 5, *SMALL)
  done = run(PROGRAM, "train", *options, "--steps", 32)
  assert "step 30 of 32" in done.stdout
  assert [line["step"] for line in metrics(workdir)] == list(range(1, 33))
  done = run_here(PROGRAM, "train", *options, "--steps", 40, "--width", 32, "--predict", "eps", status=2)
  assert "channels: 16 in the checkpoint, 32 asked for" in done.stderr
  assert "predict: 'v' in the checkpoint, 'eps' asked for" in done.stderr
  assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_conditional_model_with_guidance_on_four_devices(run_here, tmp_path):
  folder = tmp_path / "run"
  options = ("--steps", 3, "--conditional", *SMALL, "--sample-every", 0)
  done = run_here(PROGRAM, "train", "digits", "--workdir", folder, *options)
  assert "4 x cpu" in done.stdout
  assert "32 = 4 x 8" in done.stdout
  images = []
  for extra in ((), ("--label", 3), ("--guidance", 3)):
    out = tmp_path / f"{len(images)}.npz"
    run_here(PROGRAM, "sample", folder, "--num", 8, "--steps", 3, "--out", out, *extra)
    images.append(np.load(out)["arr_0"])
  np.testing.assert_array_equal(images[0][3], images[1][3])  # image 3 is of class 3 by default


@pytest.mark.slow
def test_folder_of_images(run_here, tmp_path):
  for i in range(6):
    path = tmp_path / "images" / ("ab"[i % 2]) / f"{i}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 24), (40 * i, 0, 90)).save(path)
  network = ("--width", 16, "--groups", 8, "--multipliers", 1, "--attention", "--blocks", 1)
  run_here(
    PROGRAM, "train", "folder", tmp_path / "images", "--image-size", 16,
    "--workdir", tmp_path / "run", "--steps", 2, "--batch-size", 4, "--sample-every", 0, *network,
  )  # fmt: skip
  run_here(PROGRAM, "sample", tmp_path / "run", "--num", 2, "--steps", 2)
  assert (tmp_path / "run" / "sample.png").exists()


@pytest.mark.parametrize(
  ("program", "options", "message"),
  [
    ("train", ("digits", "--learning-rat", 1), "learning-rat"),
    (
      "train",
      ("digits", "--batch-size", 6),
      "--batch-size must be a positive multiple of the 4 devices, got 6",
    ),
    ("train", ("digits", "--data", "mnist"), "data set must be one of"),
    ("train", ("digits", "--data", "folder:/nowhere", "--image-size", 8), "/nowhere is not a folder"),
    ("train", ("digits", "--dropout", 1), "--dropout must be in [0, 1), got 1.0"),
    ("train", ("digits", "--attention", 3), "attention at heights [3]"),
    ("train", ("digits", "--process-id", 0), "go together"),
    ("sample", ("--eta", 2), "--eta must be in [0, 1], got 2.0"),
    ("sample", ("--steps", 1001), "S must be at most T: asked for 1001 steps out of 1000 levels"),
    ("sample", ("--num", 0), "--num must be an integer in [1, "),
    ("sample", ("--num", 5000), "a grid holds at most 1024 images"),
    ("sample", ("--label", 3), "--label needs a conditional model"),
    ("sample", ("--trajectory", "--reconstruct"), "exclude each other"),
    ("sample", ("--reconstruct", "--eta", 1), "--reconstruct is deterministic"),
    ("sample", ("--trajectory", "--out", "x.gif"), "--out must end in .png, got x.gif"),
    ("sample", ("--out", "grid.jpg"), "--out must end in .png or .npz, or be a folder, got grid.jpg"),
    ("compare", ("--etas", 2.0), "--etas must be in [0, 1]"),
    ("train", ("digits", "--save-every", 0), "--save-every must be an integer in [1, "),
    ("sample", ("--step", 7), "no checkpoint of step 7"),
    ("sample", ("--solver", "euler"), "ddpm-large"),
  ],
)
def test_bad_input_is_one_line_and_status_2(workdir, run_here, tmp_path, program, options, message):
  words = (*options, "--workdir", tmp_path) if program == "train" else (workdir, *options)
  done = run_here(PROGRAM, program, *words, status=2)
  assert message in (done.stderr + done.stdout).replace("│", "").replace("\n", " ")
  assert "Traceback" not in done.stderr


def test_every_preset_has_its_command_and_result_and_survives_json():
  for name, preset in presets.PRESETS.items():
    assert f"ddim train {name} " in preset.__doc__
    assert "Result: " in preset.__doc__
    args = preset()
    assert build.from_json(json.loads(json.dumps(build.to_json(args.config)))) == args.config


@pytest.mark.slow
def test_full_cifar10_network_on_an_archive_of_the_real_layout(run, data_dir, tmp_path):
  """Three updates of all 35.7 M parameters, through the real builder and the paper's preset."""
  manual = data_dir / "downloads" / "manual"
  manual.mkdir(parents=True, exist_ok=True)
  cifar_archive(manual / "cifar-10-binary.tar.gz", batches=2, rows=64)
  done = run(
    "experiments.train_cifar", "--workdir", tmp_path, "--steps", 3, "--batch-size", 4, "--sample-every", 0,
    "--warmup", 0, timeout=900,
  )  # fmt: skip
  assert "35,746,307 parameters" in done.stdout
  assert "cifar10, train: 128 examples of 32x32x3" in done.stdout
  losses = [line["loss"] for line in metrics(tmp_path)]
  assert losses[0] == pytest.approx(1, abs=0.1)  # the network starts as zero, the noise has variance 1
  assert losses[2] < losses[0]
