"""The command ``ddim``: what it says and chooses, and how it names what is wrong. Nothing is compiled."""

import json
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import ddim_jax
from ddim_jax import data, plots
from ddim_jax.commands import cli, inspect_model, options, outputs, presets, sample_images, train_model
from ddim_jax.commands.compare import compare
from ddim_jax.commands.inspect_model import inspect
from ddim_jax.commands.main import COMMANDS, main
from ddim_jax.models import build, from_network
from ddim_jax.models.config import Config, Data


def test_help_names_every_command(capsys):
  main(["--help"])
  said = capsys.readouterr().out
  assert all(f"ddim {name}" in said for name in COMMANDS)
  assert "ddim train PHOTOS" in said
  main([])
  assert capsys.readouterr().out == said


def test_an_unknown_command_is_one_line_and_status_2(capsys):
  with pytest.raises(SystemExit) as ended:
    main(["smaple"])
  assert ended.value.code == 2
  assert capsys.readouterr().err.startswith("error: there is no command 'smaple': one of sample, train")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name, capsys, monkeypatch):
  monkeypatch.setattr(cli, "prepare", lambda batch_size=0: None)  # the device count of this process is set
  with pytest.raises(SystemExit) as ended:
    main([name, "--help"])
  assert ended.value.code == 0
  said = " ".join(capsys.readouterr().out.split())
  assert f"ddim {name}" in said
  if name not in ("train", "inspect"):  # which know more than models
    assert "fashion_mnist, fashion_mnist_classes or fashion_mnist_4_steps, which come along" in re.sub(
      r"[│╭╮─ ]+", " ", said
    )


def test_messages_are_in_the_words_of_the_command():
  put = lambda text: cli.in_words_of_the_command(text, frozenset({"batch_size", "num", "label"}))
  assert put("batch_size must be positive, got 0") == "--batch-size must be positive, got 0"
  assert put("num and batch_size must be") == "--num and --batch-size must be"
  assert put("label needs a conditional model") == "--label needs a conditional model"
  assert put("images must be u8, batch_size or not") == "images must be u8, batch_size or not"
  put = lambda text: cli.in_words_of_the_command(text, frozenset({"image_size", "step"}))
  assert put("size must be as x says") == "--image-size must be as x says"  # `load` calls it size
  assert put("step and ema must be as x says") == "--step and ema must be as x says"
  assert put("nothing of the kind") == "nothing of the kind"


def test_the_default_model_is_one_and_the_same():
  assert sample_images.parse([]).model == options.DEFAULT == "fashion_mnist"
  assert compare.__defaults__ == (options.DEFAULT,)
  assert sample_images.parse(["--guidance", "3"]).model == options.CONDITIONAL == "fashion_mnist_classes"


@pytest.mark.parametrize(
  ("out", "suffixes", "expected"),
  [
    (None, (".png",), "name.png"),
    ("x/grid.PNG", (".png",), "x/grid.PNG"),
    ("folder", (".png", ""), "folder"),
    ("grid.jpg", (".png", ""), ValueError),
    ("folder", (".png",), ValueError),
    ("", (".png", ""), ValueError),
  ],
)
def test_one_place_decides_names_of_results(tmp_path, out, suffixes, expected):
  from pathlib import Path

  asked = None if out is None else Path(out)
  if expected is ValueError:
    with pytest.raises(ValueError, match=r"out must end in \.png"):
      outputs.place(asked, "model", "name.png", suffixes)
    return
  assert outputs.place(asked, "model", "name.png", suffixes) == Path(expected)
  (tmp_path / "checkpoints").mkdir()
  if asked is None:
    assert outputs.place(None, str(tmp_path), "name.png") == tmp_path / "name.png"


@pytest.mark.parametrize(
  ("asked", "said"),
  [
    ({"rows": "steps"}, "rows and columns must differ, got steps for both"),
    ({"guidances": (1.0, 2.0)}, "guidances must be one value unless rows or columns is guidance, got 2"),
    ({"rows": "solver", "etas": (0.0, 1.0)}, "etas must be one value unless rows or columns is eta, got 2"),
    ({"steps": ()}, "steps must not be empty"),
  ],
)
def test_axes_of_a_comparison(asked, said):
  with pytest.raises(ValueError, match=said):
    compare("fashion_mnist", **asked)


@pytest.mark.slow
def test_any_two_can_be_the_axes_of_a_comparison(tmp_path, capsys):
  unet = ddim_jax.UNet(
    channels=4, multipliers=(1,), blocks=1, attention=(), groups=2, out_channels=1, num_classes=2
  )
  given = (jnp.zeros((1, 8, 8, 1)), jnp.array(1), jnp.zeros(1, jnp.int32))
  params = jax.device_get(unet.init(jax.random.key(0), *given)["params"])
  model = from_network(unet, (8, 8, 1), params=params, classes=("a", "b"))
  model.save(tmp_path / "m.safetensors", half=False)
  out = tmp_path / "t.png"
  axes = {"rows": "solver", "columns": "guidance", "solvers": ("ddim", "heun"), "guidances": (2.0, 3.0)}
  compare(str(tmp_path / "m.safetensors"), **axes, steps=(2,), side=1, label="b", out=out)
  said = capsys.readouterr().out
  assert all(
    f"{name}, guidance = {weight}: 1 images" in said for name in ("ddim", "heun") for weight in (2, 3)
  )
  with Image.open(out) as picture:
    assert json.loads(picture.text[plots.SETTINGS])["guidance"] == [2.0, 3.0]
    table = np.asarray(picture)
  own = model.sample(1, steps=2, solver="heun", guidance=3.0, label="b")
  wanted = plots.enlarge(plots.grid(data.to_uint8(own)), 240)
  rows, columns = table.shape[0] - 8 - 240, table.shape[1] - 8 - 240  # the last cell, before its gap
  found = table[rows : rows + 240, columns : columns + 240, :1].astype(int)
  assert np.abs(found - wanted).max() <= 1


def test_a_png_says_how_it_was_made(tmp_path, capsys):
  plots.save_png(tmp_path / "a.png", np.zeros((4, 4, 1), np.uint8), {"seed": 3, "levels": [9, 5, 0]})
  with Image.open(tmp_path / "a.png") as picture:
    assert json.loads(picture.text[plots.SETTINGS]) == {"seed": 3, "levels": [9, 5, 0], "S": 2}
  assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
  assert inspect(str(tmp_path / "a.png")) == 0
  assert "seed: 3\nlevels: 9 5 0\nS: 2" in capsys.readouterr().out
  Image.new("L", (2, 2)).save(tmp_path / "b.png")
  with pytest.raises(ValueError, match=r"b\.png does not say how it was made"):
    inspect(str(tmp_path / "b.png"))


@pytest.mark.parametrize(
  ("size", "accelerated"),
  [(8, False), (28, False), (48, False), (12, True), (32, True)]
  + [
    pytest.param(*case, marks=pytest.mark.slow)
    for case in [(96, False), (256, False), (64, True), (512, True)]
  ],
)
def test_a_network_for_every_size_and_machine(size, accelerated):
  network = presets.suited(size, accelerated)
  model = build.from_config(Config(network=network), (size, size, 3))
  apply = lambda params, x: model.adapted.apply(params, x, 1, None)
  x = jax.ShapeDtypeStruct((1, size, size, 3), np.float32)
  shapes = jax.eval_shape(apply, model.template(), x)
  assert shapes.shape == (1, size, size, 3)
  parameters = sum(leaf.size for leaf in jax.tree.leaves(model.template()))
  assert parameters < (400e6 if accelerated else 10e6)


def test_a_size_that_cannot_be_halved_is_refused():
  with pytest.raises(ValueError, match="a multiple of a larger power of 2, such as 96, got 101"):
    presets.suited(101, accelerated=False)


def test_a_folder_of_photographs_is_a_plain_path(tmp_path):
  (tmp_path / "photos").mkdir()
  args = train_model.parse(["folder", str(tmp_path / "photos"), "--workdir", str(tmp_path / "run")])
  assert args == train_model.parse([str(tmp_path / "photos"), "--workdir", str(tmp_path / "run")])
  found = train_model.completed(args)
  assert found.data == Data(f"folder:{tmp_path / 'photos'}", image_size="32")
  assert train_model.fitted(args, (32, 32, 3)).network == presets.suited(32, accelerated=False)
  wide = train_model.fitted(args, (32, 48, 1)).network
  assert (wide.multipliers, wide.attention) == ((1, 2, 3), (8,))  # 48 can be halved as often as 32
  own = train_model.parse(["folder", str(tmp_path / "photos"), "--width", "64"])
  assert (own.network.channels, own.data.channels) == (64, 3)
  assert train_model.fitted(own, (32, 32, 3)).network == own.network
  digits = train_model.parse(["digits"])
  assert train_model.fitted(train_model.completed(digits), (8, 8, 1)) == digits


@pytest.mark.parametrize(
  ("words", "expected"),
  [
    (["scans.npy", "--values", "0", "4095"], Data("scans.npy", values=("0", "4095"))),
    (["latents.npz", "--values", "standardise"], Data("latents.npz", values=("standardise",))),
    (["x.npy", "--values", "-1", "1"], Data("x.npy", values=("-1", "1"))),
    (["hf:OWNER/NAME", "--image-size", "64x96"], Data("hf:OWNER/NAME", image_size="64x96")),
    (["tfds:celeb_a", "--crop", "140"], Data("tfds:celeb_a", crop="140")),
    (["folder", "there", "--channels", "1", "--bits", "16"], Data("there", channels=1, bits=16)),
    (
      ["folder", "there", "--condition-columns", "age", "weight", "--label-column", "kind", "--skip-broken"],
      Data("there", condition_columns=("age", "weight"), label_column="kind", skip_broken=True),
    ),
  ],
)
def test_what_to_train_on_is_typed_as_it_is_called(words, expected):
  assert train_model.parse(words).data == expected


def test_the_width_of_a_network_has_a_range():
  with pytest.raises(ValueError, match=r"width must be an integer in \[4, 65,536\], got 3"):
    train_model.parse(["digits", "--width", "3"])


def test_decoded_pictures_are_kept_beside_the_workdir(tmp_path):
  (tmp_path / "photos").mkdir()
  Image.new("RGB", (20, 24), (40, 0, 90)).save(tmp_path / "photos" / "0.png")
  words = [str(tmp_path / "photos"), "--workdir", str(tmp_path / "runs" / "mine"), "--image-size", "8x4"]
  without = train_model.opened(train_model.parse([*words, "--no-cache"]))
  assert not (tmp_path / "runs").exists()
  for _ in range(2):
    found = train_model.opened(train_model.parse(words))
    assert found.shape == (8, 4, 3)
    np.testing.assert_array_equal(found.read(np.arange(1))[0], without.read(np.arange(1))[0])
  (kept,) = (tmp_path / "runs" / "cache").glob("photos-*")
  assert (kept / "pixels.bin").stat().st_size == 8 * 4 * 3
  elsewhere = train_model.parse([*words, "--cache-dir", str(tmp_path / "elsewhere")])
  train_model.opened(elsewhere)
  assert (tmp_path / "elsewhere" / kept.name).is_dir()


def said_by(function, *words, capsys):
  """Status and output of a command."""
  with pytest.raises(SystemExit) as ended:
    function([*map(str, words)])
  return ended.value.code, *capsys.readouterr()


def test_data_are_inspected_without_training(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(cli, "prepare", lambda batch_size=0: None)  # the device count of this process is set
  monkeypatch.chdir(tmp_path)
  for name, size in (("cat/0", (20, 24)), ("cat/1", (20, 24)), ("dog/0", (9, 5))):
    path = tmp_path / "photos" / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (40, 0, 90)).save(path)
  (tmp_path / "photos" / "dog" / "1.png").write_bytes(b"x")
  status, said, _ = said_by(inspect_model.main, "photos", capsys=capsys)
  assert status == 0
  for words in (
    "3 examples of 64x64x3, uint8", "24x20 (2), 5x9 (1)", "RGB (3)", "2: cat (2), dog (1)",
    "skipped     1: it is no picture", "(dog/1.png)", "0 to 255 (uint8) become -1 to 1",
  ):  # fmt: skip
    assert words in said
  with Image.open(tmp_path / "contact_sheet.png") as sheet:
    assert sheet.width > 64
  np.save(tmp_path / "scans.npy", np.arange(2 * 4 * 4, dtype=np.uint16).reshape(2, 4, 4))
  status, said, _ = said_by(inspect_model.main, "scans.npy", "--out", "s.png", capsys=capsys)
  assert (status, (tmp_path / "s.png").exists()) == (0, True)
  assert "2 examples of 4x4x1, uint16" in said
  assert "what these mean is not said; training asks: --values" in said
  status, said, _ = said_by(inspect_model.main, "scans.npy", "--values", 0, 99, capsys=capsys)
  assert (status, "0 to 31; 0 to 99 (uint16) become -1 to 1" in said) == (0, True)


@pytest.mark.parametrize(
  ("words", "message"),
  [
    (("fashion_mnist", "--channels", 1), "go with data, which fashion_mnist is not"),
    (("x.npy", "--channels", 1), "--channels does not go with data x.npy"),
    ((".", "--image-size", "4x"), "--image-size must be the side of a square"),
    ((".", "--image-size", "0"), "--image-size must be the side of a square"),
    (("x.npy", "--values", "few"), "--values must be LOW HIGH, minmax or standardise, got few"),
  ],
)
def test_what_does_not_go_with_data_is_refused(words, message, tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(cli, "prepare", lambda batch_size=0: None)
  monkeypatch.chdir(tmp_path)
  status, _, said = said_by(inspect_model.main, *words, capsys=capsys)
  assert (status, message in said) == (2, True), said


def test_a_data_set_in_the_format_of_the_hub_is_inspected(tmp_path, monkeypatch, capsys):
  datasets = pytest.importorskip("datasets", reason="needs the hf extra")
  monkeypatch.setattr(cli, "prepare", lambda batch_size=0: None)
  rows = {"img": [Image.new("RGB", (8, 6), (i, 0, 0)) for i in range(4)], "label": [0, 1, 1, 1]}
  kinds = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
  datasets.Dataset.from_dict(rows, features=kinds).save_to_disk(str(tmp_path / "saved"))
  words = (f"hf:{tmp_path / 'saved'}", "--image-column", "img", "--image-size", "6x8")
  status, said, _ = said_by(inspect_model.main, *words, "--out", tmp_path / "s.png", capsys=capsys)
  assert (status, "4 examples of 6x8x3, uint8" in said, "dog (3), cat (1)" in said) == (0, True, True)


def test_what_the_page_needs_has_an_extra_of_its_own(monkeypatch, capsys):
  def without(name):
    raise ModuleNotFoundError(f"No module named {name!r}", name="gradio")

  monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
  monkeypatch.setattr("importlib.import_module", without)
  with pytest.raises(SystemExit) as ended:
    main(["play"])
  assert ended.value.code == 2
  assert capsys.readouterr().err == "error: this needs gradio: pip install 'ddim_jax[app]'\n"


def test_a_package_that_is_missing_is_named(monkeypatch, capsys):
  monkeypatch.setitem(COMMANDS, "sample", ("not_there", ""))
  with pytest.raises(ModuleNotFoundError, match=r"ddim_jax\.commands\.not_there"):  # a fault of ours
    main(["sample"])

  def without(name):
    raise ModuleNotFoundError(f"No module named {name!r}", name="tyro")

  monkeypatch.setattr("importlib.import_module", without)
  with pytest.raises(SystemExit) as ended:
    main(["sample"])
  assert ended.value.code == 2
  assert capsys.readouterr().err == "error: this needs tyro: pip install 'ddim_jax[train]'\n"


@pytest.mark.parametrize("name", ["torch", "diffusers"])
def test_a_benchmark_says_what_its_peers_need(name, run_here, monkeypatch):
  if name == "diffusers":
    pytest.importorskip("torch")  # is asked for first
  monkeypatch.setitem(sys.modules, name, None)  # as where it is not installed
  done = run_here(
    "experiments.bench", "sample", "--network", "tiny", "--batch-size", 2, "--steps", 1, status=2
  )
  assert done.stderr == f"error: this needs {name}: pip install 'ddim_jax[test]'\n"
