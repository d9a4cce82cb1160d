"""The programs that edit, invert and sample in parallel, in this process, on a tiny untrained network."""

import json
import re

import jax
import numpy as np
import pytest
from PIL import Image

from ddim_jax import checkpoints, load
from ddim_jax.commands import editing, sequences
from ddim_jax.commands.editing import Edit
from ddim_jax.commands.sample_images import parse, sample
from ddim_jax.models import build, config, datasets, from_network
from ddim_jax.models.roundtrip import through_noise
from experiments.studies import edits, parallel_rounds, round_trips
from tests.helpers import likeness

SIDE = 8


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  """A checkpoint of a conditional network for digits, its weights random."""
  folder = tmp_path_factory.mktemp("tiny")
  network = config.Network(
    channels=8, multipliers=(1,), blocks=1, attention=(), dropout=0.0, groups=4, conditional=True
  )
  settings = config.Config(network=network)
  names = tuple(str(i) for i in range(10))
  shapes = build.from_config(settings, (SIDE, SIDE, 1), names).template()
  random = np.random.default_rng(0)
  params = jax.tree.map(lambda leaf: 0.2 * random.normal(size=leaf.shape).astype(np.float32), shapes)
  saved = {"config": build.to_json(settings), "image": [SIDE, SIDE, 1], "classes": list(names)}
  with checkpoints.open_manager(folder / "checkpoints") as manager:
    checkpoints.save(manager, 1, {"ema": params}, saved)
  left = np.zeros((SIDE, SIDE), np.uint8)
  left[:, SIDE // 2 :] = 255
  Image.fromarray(left).save(folder / "mask.png")
  Image.fromarray(np.full((SIDE, SIDE), 60, np.uint8)).save(folder / "grey.png")
  Image.new("L", (SIDE, SIDE)).save(folder / "black.png")
  (folder / "text.png").write_text("no picture")
  return folder


def rows(path, count, columns):
  """The pictures of a grid with labels on its left and above, ``u8[rows, columns, H, W]``."""
  with Image.open(path) as image:
    pixels = np.asarray(image)[..., 0]
  factor = -(-max(72, 480 // max(count, columns)) // SIDE)
  cell = factor * SIDE + 2
  cells = pixels[-count * cell :, -columns * cell :].reshape(count, cell, columns, cell).swapaxes(1, 2)
  return cells[:, :, : SIDE * factor : factor, : SIDE * factor : factor].astype(int)


def draw(workdir, out, *options):
  sample(parse([str(o) for o in (workdir, "--out", out, "--steps", 6, *options)]))


@pytest.mark.slow
def test_inpainting_keeps_what_is_black_in_the_mask_and_paints_the_rest(workdir, tmp_path):
  out = tmp_path / "inpainted.png"
  options = ("--num", 3, "--inpaint", workdir / "mask.png", "--eta", 1, "--guidance", 2, "--jump", 2)
  draw(workdir, out, *options)
  original, kept, result = rows(out, 3, 3)
  known = np.s_[:, :, : SIDE // 2]
  assert np.abs(result[known] - original[known]).max() <= 1  # a unit of rounding
  np.testing.assert_array_equal(kept[known], original[known])
  assert np.all(kept[:, :, SIDE // 2 :] == 128)
  assert np.abs(result - original)[:, :, SIDE // 2 :].mean() > 5
  images, _ = datasets.real_images(load(workdir), 3)
  np.testing.assert_array_equal(original, images[..., 0])


@pytest.mark.slow
def test_classes_stand_above_their_columns(workdir, tmp_path):
  out = tmp_path / "classes.png"
  draw(workdir, out, "--num", 20)
  with Image.open(out) as image:
    head = np.asarray(image)[:24]
  for i in range(10):
    alike = [likeness(head[:, 74 * i : 74 * (i + 1)], str(number)) for number in range(10)]
    assert np.argmax(alike) == i


@pytest.mark.slow
def test_strength_says_how_far_from_the_picture(workdir, tmp_path):
  far = []
  for strength in (0.17, 1.0):
    out = tmp_path / f"{strength}.png"
    draw(workdir, out, "--num", 2, "--image", workdir / "grey.png", "--strength", strength, "--class", 7)
    original, result = rows(out, 2, 2)
    assert np.all(original == 60)
    assert np.any(result[0] != result[1])  # another seed for every result
    far.append(np.abs(result - original).mean())
  assert 0 < far[0] < 0.3 * far[1]


@pytest.mark.slow
def test_a_picture_becomes_one_of_another_class(workdir, tmp_path):
  """Of its own class it is itself again, of another it is not, and less so over more of the levels."""
  out, far = tmp_path / "edited.png", {}
  for target, strength in ((7, 1.0), (2, 1.0), (2, 0.34)):
    options = ("--num", 2, "--image", workdir / "grey.png", "--class", 7, "--guidance", 3)
    draw(workdir, out, *options, "--edit-to", target, "--strength", strength)
    original, result = rows(out, 2, 2)
    assert np.all(original == 60)
    far[target, strength] = np.abs(result - original).mean()
  assert far[7, 1.0] <= 1  # of 255: rounding
  assert 2 < far[2, 0.34] < far[2, 1.0]


@pytest.mark.slow
def test_pictures_of_any_size_are_fitted_to_the_model(workdir, tmp_path, capsys):
  """Four times the size and wider: the middle, resized. It says so."""
  wide = np.full((4 * SIDE, 6 * SIDE), 200, np.uint8)
  wide[:, SIDE : 5 * SIDE] = 60
  mask = np.zeros((4 * SIDE, 4 * SIDE), np.uint8)
  mask[:, 2 * SIDE :] = 255
  for name, pixels in (("wide.png", wide), ("large.png", mask)):
    Image.fromarray(pixels).save(tmp_path / name)
  out = tmp_path / "out.png"
  draw(workdir, out, "--num", 1, "--image", tmp_path / "wide.png", "--inpaint", tmp_path / "large.png")
  original, kept, _ = rows(out, 3, 1)
  assert np.all(original == 60)
  assert np.all(kept[:, :, : SIDE // 2] == 60)
  assert np.all(kept[:, :, SIDE // 2 :] == 128)
  said = capsys.readouterr().out
  assert "wide.png: the largest central part of 48x32 pixels, resized to 8x8" in said
  assert "large.png: the largest central part of 32x32 pixels, resized to 8x8" in said


NOT_FINITE = {
  "trajectory": lambda how, out, picture: sequences.draw_trajectory(how, 2, out, {}),
  "interpolation": lambda how, out, picture: sequences.draw_interpolation(how, 2, out, {}),
  "strength": lambda how, out, picture: editing.draw(Edit(strength=1.0, image=picture), how, 2, out, {}),
  "inpaint": lambda how, out, picture: editing.draw(Edit(inpaint=picture, image=picture), how, 2, out, {}),
  "round trip": lambda how, out, picture: through_noise(how.model)(
    np.zeros((2, SIDE, SIDE, 1), np.uint8), None, how.ts
  ),
}


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", NOT_FINITE)
def test_what_is_not_finite_is_no_picture_but_status_1(name, value, tmp_path):
  """A broken network is no bad input: `cli.run` ends with 1 for this error, with 2 for a ValueError."""
  picture, out = tmp_path / "white.png", tmp_path / "out.png"
  Image.fromarray(np.full((SIDE, SIDE), 255, np.uint8)).save(picture)
  model = from_network(lambda params, x, t: x * params, (SIDE, SIDE, 1), params=np.float32(value), clip=False)
  how = sequences.How(model, model.levels(2), "ddim", 0.0, None, None, False, 0)
  with pytest.raises(FloatingPointError, match=r"of \d+ images are not finite, such as image 0"):
    NOT_FINITE[name](how, out, picture)
  assert not out.exists()


def test_class_is_label(workdir):
  parsed = lambda name: parse([str(workdir), name, "3"])
  assert parsed("--class") == parsed("--label")
  assert parsed("--class").label == "3"


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (("--inpaint", "black.png"), "black.png must have white pixels"),
    (("--inpaint", "text.png"), "text.png cannot be used: it is no picture"),
    (("--inpaint", "mask.png", "--resample", "0"), r"resample must be an integer in \[1, "),
    (("--image", "grey.png"), "--image is for --inpaint, --strength and --edit-to"),
    (("--strength", "0"), "strength must be in"),
    (
      ("--edit-to", "12", "--image", "grey.png", "--class", "1"),
      r"edit_to must be in \[0, 9\] or one of .* '12'",
    ),
    (("--edit-to", "2", "--image", "grey.png"), "--edit-to needs --class with --image"),
    (("--edit-to", "2", "--inpaint", "mask.png"), "exclude each other"),
    (("--edit-to", "2", "--solver", "heun"), "--edit-to goes with --solver ddim"),
    (("--strength", "0.5", "--trajectory"), "exclude each other"),
  ],
)
def test_bad_input(workdir, options, message):
  options = [str(workdir / o) if o.endswith(".png") else o for o in options]
  with pytest.raises(ValueError, match=message):
    draw(workdir, workdir / "out.png", *options)


@pytest.mark.slow
def test_the_inversion_study(workdir, tmp_path, capsys):
  out = tmp_path / "curve.png"
  round_trips.round_trips(str(workdir), steps=(5,), refine=(0, 8), num=2, out=out)
  printed = capsys.readouterr().out
  error = {n: float(e) for n, e in re.findall(r"^(k = \d|bijective, \w+) +(\S+) \(", printed, re.MULTILINE)}
  assert error["k = 8"] < error["k = 0"] / 10
  assert error["bijective, bdia"] < 1e-6
  assert out.stat().st_size > 1000
  with pytest.raises(ValueError, match=r"damping must be in \(0, 1\], got 0.0"):
    round_trips.round_trips(str(workdir), refine=(0,), damping=0.0)


@pytest.mark.slow
def test_the_study_of_edits(workdir, tmp_path):
  """What is exact by construction comes back; an untrained network says nothing of the rest."""
  edits.edits(str(workdir), weights=(1.0, 3.0), steps=4, num=3, out=tmp_path)
  found = json.loads((tmp_path / "edits.json").read_text())["rows"]
  assert [row["weight"] for row in found] == [1.0, 3.0] * 4
  error = {(row["way"], row["weight"]): row["reconstruction"] for row in found if not row["lost"]}
  assert max(error["noise maps", 1.0], error["noise maps", 3.0], error["bijective", 1.0]) < 1e-6
  assert error["noise maps", 3.0] < error["inversion", 3.0]
  assert len((tmp_path / "edits.md").read_text().splitlines()) == 4 + len(found)


@pytest.mark.slow
def test_the_parallel_study_on_four_devices(workdir, capsys):
  parallel_rounds.parallel_rounds(str(workdir), steps=(10,), tolerances=(0.1, 0.0), num=2)
  lines = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
  (_, window, _, loose, *_), (_, _, _, rounds, _, evaluations, difference, _) = lines
  assert int(window) == 8  # 10 rounded to what four devices can share
  assert int(loose) < int(rounds) <= 10
  assert int(evaluations) == 8 * int(rounds)
  assert float(difference) < 1e-4
  with pytest.raises(ValueError, match="at least the number of devices, 4, got 3"):
    parallel_rounds.parallel_rounds(str(workdir), steps=(3,))
