"""The command ``ddim``: what it says and chooses, and how it names what is wrong. Nothing is compiled."""

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import ddim_jax
from ddim_jax import data, plots
from ddim_jax.commands import cli, options, outputs, presets, sample_images, train_model
from ddim_jax.commands.compare import compare
from ddim_jax.commands.main import COMMANDS, main
from ddim_jax.models import build, from_network
from ddim_jax.models.config import Config, Data


def test_help_names_every_command(capsys):
  main(["--help"])
  said = capsys.readouterr().out
  assert all(f"ddim {name}" in said for name in COMMANDS)
  assert "ddim train folder PHOTOS" in said
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
  if name != "train":
    assert "fashion_mnist or fashion_mnist_classes, which come along" in re.sub(r"[│╭╮─ ]+", " ", said)


def test_messages_are_in_the_words_of_the_command():
  put = lambda text: cli.in_words_of_the_command(text, frozenset({"batch_size", "num", "label"}))
  assert put("batch_size must be positive, got 0") == "--batch-size must be positive, got 0"
  assert put("num and batch_size must be") == "--num and --batch-size must be"
  assert put("label needs a conditional model") == "--label needs a conditional model"
  assert put("images must be u8, batch_size or not") == "images must be u8, batch_size or not"
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


def test_a_png_says_how_it_was_made(tmp_path):
  outputs.save_png(tmp_path / "a.png", np.zeros((4, 4, 1), np.uint8), {"seed": 3, "levels": [9, 5, 0]})
  with Image.open(tmp_path / "a.png") as picture:
    assert json.loads(picture.text[plots.SETTINGS]) == {"seed": 3, "levels": [9, 5, 0], "S": 2}
  assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("accelerated", [False, True])
@pytest.mark.parametrize("size", [8, 12, 28, 32, 48, 64, 96, 128, 256, 512])
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
  found = train_model.completed(args)
  assert found.data == Data(f"folder:{tmp_path / 'photos'}", image_size=32)
  assert found.network == presets.suited(32, accelerated=False)
  small = train_model.completed(dataclasses.replace(args, data=Data(args.data.data, image_size=64)))
  assert small.network == presets.suited(64, accelerated=False)
  own = train_model.parse(["folder", str(tmp_path / "photos"), "--channels", "64"])
  assert train_model.completed(own).network == own.network
  assert train_model.completed(train_model.parse(["digits"])) == train_model.parse(["digits"])


def test_what_a_run_will_take_is_said_before_and_weeks_are_warned_of():
  model = build.from_config(presets.digits().config, (8, 8, 1))
  few, *none = train_model.outlook(model, 128, 10)
  assert re.search(r"0\.7 M parameters; about \S+ s per step; 10 steps by \d+ \w+ \d{4}", few)
  assert not none
  _, warning = train_model.outlook(model, 128, 10**12)
  assert re.search(r"warning: that is about [\d,]+ weeks on this machine: take fewer --steps", warning)


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
