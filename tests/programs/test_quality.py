"""Models as files, evaluation while training, and the paper's page, on a tiny network."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddim_jax import checkpoints, data, metrics
from ddim_jax.commands import presets
from ddim_jax.commands.export import export
from ddim_jax.commands.sample_images import parse, sample
from ddim_jax.commands.train_model import train
from ddim_jax.metrics import classifier, efficientnet
from ddim_jax.models import build, datasets, drawing, exported, load, packaged
from ddim_jax.models import config as configs
from ddim_jax.runs import evaluation, objective, quality
from experiments.paper import __main__ as paper
from experiments.paper import cells, page, study

T = 12
PACKAGED = packaged()
SETTINGS = presets.Args(
  presets.Run(None),
  configs.Data("digits"),
  configs.Network(channels=4, multipliers=(1,), blocks=1, attention=(), dropout=0.0, groups=2),
  configs.Diffusion(levels=T, schedule="cosine"),
  configs.Optimisation(batch_size=8, ema=0.9, emas=(0.5,), warmup=0),
)
MODEL = build.from_config(SETTINGS.config, (8, 8, 1), tuple("0123456789"))


def random_params(seed):
  generator = np.random.default_rng(seed)
  return jax.tree.map(lambda leaf: generator.normal(0, 0.2, leaf.shape).astype(np.float32), MODEL.template())


@pytest.fixture(scope="module")
def settings(data_dir):
  return dataclasses.replace(SETTINGS, data=configs.Data("digits", data_dir))


@pytest.fixture(scope="module")
def workdir(settings, tmp_path_factory):
  """A checkpoint with two averages."""
  folder = tmp_path_factory.mktemp("tiny")
  description = {
    "config": build.to_json(settings.config),
    "image": [8, 8, 1],
    "classes": list("0123456789"),
  }
  state = {"ema": random_params(0), "emas": (random_params(1),)}
  with checkpoints.open_manager(folder / "checkpoints") as manager:
    checkpoints.save(manager, 7, state, description)
  return folder


def equal(a, b, **tolerance):
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


def test_an_exported_model_is_the_run_rounded(workdir, tmp_path, capsys):
  out = tmp_path / "model.safetensors"
  export(str(workdir), out)
  trained, again = load(workdir), load(out)
  equal(again.params, trained.params, rtol=2**-11, atol=2**-25)
  assert (again.step, again.shape, again.classes) == (7, (8, 8, 1), ())
  assert dataclasses.replace(again.config, data=trained.config.data) == trained.config
  assert again.config.data.data_dir is None
  assert "step 7, 56 images seen" in capsys.readouterr().out


def test_any_average_can_be_chosen(workdir):
  equal(load(workdir, ema=0.5).params, random_params(1))
  equal(load(workdir, ema=0.9).params, random_params(0))
  with pytest.raises(ValueError, match=r"one of \[0.5, 0.9\], .* got 0.99"):
    load(workdir, ema=0.99)


def test_sampling_without_arguments_uses_the_packaged_model(workdir, tmp_path, monkeypatch, capsys):
  packaged = tmp_path / "packaged.safetensors"
  export(str(workdir), packaged)
  monkeypatch.chdir(tmp_path)
  assert parse([]).model == "fashion_mnist"
  assert parse(["--class", "3"]).model == "fashion_mnist_classes"
  assert parse(["fashion_mnist", "--class", "3"]).model == "fashion_mnist"
  sample(dataclasses.replace(parse(["--num", "4", "--steps", "2"]), model=str(packaged)))
  assert (tmp_path / "sample.png").is_file()


def test_files_that_are_no_models_are_refused(workdir, tmp_path):
  from safetensors.numpy import save_file

  save_file({"a": np.zeros(2)}, str(tmp_path / "other.safetensors"))
  (tmp_path / "cut.safetensors").write_bytes((tmp_path / "other.safetensors").read_bytes()[:-4])
  for name, error, message in (
    ("other", ValueError, "not written by Model.save"),
    ("cut", ValueError, "cannot be read"),
    ("absent", FileNotFoundError, "no such file or folder.*fashion_mnist, "),
  ):
    with pytest.raises(error, match=message):
      load(tmp_path / f"{name}.safetensors")
  with pytest.raises(ValueError, match="leave out step"):
    load(tmp_path / "other.safetensors", step=3)
  with pytest.raises(ValueError, match=r"must end in \.safetensors"):
    export(str(workdir), tmp_path / "x.npz")
  with pytest.raises(ValueError, match="a has values that float16 cannot hold"):
    exported.write(tmp_path / "x.safetensors", {"a": np.float32([1e5])}, {})


@pytest.mark.slow
@pytest.mark.parametrize("path", PACKAGED.values(), ids=PACKAGED)
def test_the_packaged_models_are_small_and_trained(path):
  assert path.stat().st_size <= 4_000_000
  assert path.with_suffix(".md").is_file()
  trained = load(path)
  assert trained.shape == (28, 28, 1)
  noise = jax.random.normal(jax.random.key(0), (2, 28, 28, 1))
  eps = jax.jit(trained.denoiser(clip=False))(noise, jnp.int32(trained.schedule.T)).eps
  assert float(jnp.mean((eps - noise) ** 2)) < 0.02  # at level T, all is noise; untrained, this is 1


@pytest.mark.slow
def test_the_packaged_conditional_model_draws_what_it_is_asked_for(tmp_path):
  """By the classifier that comes along; without labels one in ten would be right."""
  options = ["--num", "20", "--steps", "5", "--guidance", "3", "--out", str(tmp_path / "drawn.npz")]
  sample(parse(options))
  images = np.load(tmp_path / "drawn.npz")["arr_0"]
  _, logits = classifier.extractor("fashion_mnist").apply(images)
  assert np.mean(np.argmax(logits, -1) == np.arange(20) % 10) >= 0.7


@pytest.mark.slow
def test_the_packaged_student_needs_four_steps(tmp_path):
  """By the same classifier; with its own number of steps, and without guidance."""
  student = load("fashion_mnist_4_steps")
  assert student.levels(student.own_steps).tolist() == [1000, 750, 500, 250, 0]
  images = student.pictures(student.sample(100))
  _, logits = classifier.extractor("fashion_mnist").apply(images)
  assert np.mean(np.argmax(logits, -1) == np.arange(100) % 10) >= 0.7


@pytest.mark.slow
def test_evaluation_is_the_distance_of_each_average(settings, workdir, tmp_path):
  source = datasets.open_data(settings.data)
  evaluate = evaluation.evaluator(MODEL, source, folder=tmp_path, num=10, decays=(0.5,), name="digits")
  values = evaluate(random_params(0), [random_params(1)])
  judge = quality.judge(1, "digits")
  real = metrics.moments(judge.look(source.read(np.arange(source.size))[0])[0])
  for name, ema in (("frechet", 0.9), ("frechet_0.5", 0.5)):
    trained = load(workdir, ema=ema)
    size, draw = drawing.numbered_pictures(trained, np.arange(T, -1, -1), at_once=10)
    made = metrics.moments(judge.look(draw(np.arange(size))[:10])[0])
    assert values[name] == pytest.approx(metrics.frechet_distance(real, made).value, rel=1e-4)
  assert values["frechet"] != values["frechet_0.5"]


@pytest.mark.slow
def test_training_keeps_the_best_step_and_records_losses_by_level(settings, tmp_path, monkeypatch, capsys):
  found = iter([5.0, 2.0, 3.0, 4.0])
  monkeypatch.setattr(evaluation, "evaluator", lambda *_, **__: lambda *_: {"frechet": next(found)})
  traces, make_losses = [], objective.losses

  def counted(*arguments):
    losses = make_losses(*arguments)
    return lambda *inputs: (traces.append(1), losses(*inputs))[1]

  monkeypatch.setattr(objective, "losses", counted)
  run = presets.Run(tmp_path, steps=10, eval_every=3, keep=1, sample_every=0)
  with jax.numpy_dtype_promotion("standard"):
    assert train(dataclasses.replace(settings, run=run)) == 0
  assert len(traces) == 1  # what comes out of an update goes into the next without another compilation
  assert checkpoints.steps(tmp_path / "checkpoints") == [6, 10]
  lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
  assert [line.get("frechet") for line in lines] == [None, None, 5, None, None, 2, None, None, 3, 4]
  levels = [{k: v for k, v in line.items() if k.startswith("loss_")} for line in lines]
  assert [bool(found) for found in levels] == [False] * 9 + [True]
  assert set(levels[9]) <= {f"loss_{t:04d}_{t:04d}" for t in range(1, 13)} | {
    "loss_0005_0006",
    "loss_0011_0012",
  }
  assert np.mean(list(levels[9].values())) == pytest.approx(lines[9]["loss"], rel=0.8)


def test_mean_losses_by_level():
  values = {"level_losses": np.float32([2, 0, 9]), "level_counts": np.float32([4, 0, 3])}
  assert evaluation.level_edges(3) == [2, 3]
  assert evaluation.by_level(values, 3) == {"loss_0001_0001": 0.5, "loss_0003_0003": 3.0}
  assert evaluation.level_edges(1000) == list(range(101, 1000, 100))


def arguments(workdir, out, *chosen):
  return paper.Args(
      str(workdir), out, chosen, steps=(2, 4), etas=(0.0,), inversion_steps=(2, 4), num_samples=24,
      num_test=8, num_bits=4, batch_size=2,
  )  # fmt: skip


@pytest.fixture(scope="module")
def whole(workdir, tmp_path_factory):
  """All cells, made without a break."""
  out = tmp_path_factory.mktemp("paper")
  paper.main(arguments(workdir, out))
  return out


@pytest.mark.slow
def test_the_page_holds_every_table_and_figure(whole):
  results = json.loads((whole / "results.json").read_text())
  assert len(results["cells"]) == 6 + 2 + 2 * 2
  text = (whole / "README.md").read_text()
  for part in (
    "Table 1: FD-classifier (digits)",
    "(N = 24)",
    "Table 2",
    "(N = 8)",
    "sigma-hat",
    "S = 4",
    "not FID",
  ):
    assert part in text
  for name in ("figure3", "figure4", "figure5", "figure6", "levels", "bits"):
    assert f"({results['cells'][name]['result']['picture']})" in text
    assert (whole / f"{name}.png").is_file()
  settings = results["cells"]["table1/eta=0/S=4"]["settings"]
  assert settings["levels"] == [10, 7, 4, 1, 0]
  assert settings["clip"] is False
  assert results["cells"]["table1/sigma-hat/S=4"]["settings"]["clip"] is True
  assert "paper's" not in text.split("\n", 1)[1]  # digits are no data set of the paper
  assert not list((whole / "cells").glob("partial*"))


@pytest.mark.slow
def test_a_killed_run_goes_on_inside_its_cell(whole, workdir, tmp_path, monkeypatch, capsys):
  """Killed in its third batch of 8; the rest gives the same values as without a break."""
  cell = "table1/eta=0/S=4"
  seen = []

  def add(before, features, logits):
    seen.append(len(features))
    if len(seen) == 3:
      raise KeyboardInterrupt
    return real_add(before, features, logits)

  real_add, reference = quality.add, next(whole.glob("reference-*"))
  (tmp_path / reference.name).write_bytes(reference.read_bytes())
  monkeypatch.setattr(quality, "add", add)
  monkeypatch.setattr(cells, "_SAVE_SECONDS", 0.0)
  args = arguments(workdir, tmp_path, cell)
  with pytest.raises(KeyboardInterrupt):
    paper.main(args)
  paper.main(args)
  assert seen == [8, 8, 8, 8]  # two before, the one that was lost, and the third: none again
  get = lambda folder: json.loads((folder / "results.json").read_text())["cells"][cell]["result"]
  expected, got = get(whole), get(tmp_path)
  for name, value in expected.items():
    assert got[name] == (value if isinstance(value, str) else pytest.approx(value, rel=1e-6)), name
  capsys.readouterr()
  paper.main(args)
  assert "done before" in capsys.readouterr().out
  assert len(seen) == 4


@pytest.mark.slow
def test_table_2_is_the_round_trip(whole, workdir):
  """Against the round trip written here with the library's two functions, eight images at once."""
  import ddim_jax

  trained = load(workdir)
  x0 = data.from_uint8(datasets.open_data(trained.config.data).read(np.arange(8))[0])
  ts = ddim_jax.timesteps.uniform(T, 4)
  denoise = trained.denoiser(clip=False)
  x_T = ddim_jax.invert(denoise, trained.schedule, x0, ts)
  back = ddim_jax.sample(jax.random.key(0), denoise, trained.schedule, x_T, ts)[0]
  result = json.loads((whole / "results.json").read_text())["cells"]["table2/S=4"]["result"]
  assert result["error"] == pytest.approx(float(jnp.mean((back - x0) ** 2)) / 4, rel=1e-4)


def test_the_papers_numbers_stand_beside_its_own_data_sets():
  cifar10 = {"data": "cifar10", "image_size": None}
  assert page.published(cifar10) == "cifar10"
  assert page.published({"data": "tfds:celeb_a", "image_size": 64}) == "celeb_a"
  assert page.published({"data": "tfds:celeb_a", "image_size": 32}) is None
  settings = {"judge": "FID", "judge_sha256": "f" * 64, "seed": 0}
  result = {"frechet": 20.0, "kernel": 0.001, "score": 8, "precision": 0.5, "recall": 0.25, "N": 50_000}
  result |= {"reference_sha256": "e" * 64, "reference_N": 50_000}
  cell = {"settings": settings, "result": result, "versions": {}}
  model = {"step": 3, "weights_sha256": "a" * 64, "data": cifar10, "optimisation": {"batch_size": 128}}
  text = page.page(model, {"table1/eta=0/S=10": cell})
  assert "| eta=0 | 20 (N = 50,000) |" in text
  assert "| eta=1 | 41.07 | 18.36 | 8.01 | 5.78 | 4.73 |" in text
  rows = ("sigma-hat", "eta=1", "eta=0.2", "eta=0")
  text = page.page(model, {f"table1/{row}/S=10": cell for row in rows}).partition("The paper's")[0]
  assert sorted(rows, key=lambda row: text.index(f"| {row} |")) == ["eta=0", "eta=0.2", "eta=1", "sigma-hat"]
  cell["settings"] = settings | {"judge": "FID (clean-fid resizing)"}
  assert "41.07" not in page.page(model, {"table1/eta=0/S=10": cell})


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"cells": ("table3",)}, "cells: table3 matches none of figure3"),
    ({"num_samples": 2}, r"num_samples must be an integer in \[5, .*got 2"),
    ({"etas": (2.0,)}, r"etas must be in \[0, 1\]"),
    ({"clean_fid": True}, "clean_fid needs inception"),
    ({"steps": (40,)}, "asked for 40 steps out of 12"),
  ],
)
def test_bad_input_is_named(workdir, tmp_path, change, message):
  with pytest.raises(ValueError, match=message):
    paper.main(dataclasses.replace(arguments(workdir, tmp_path), **change))


def test_only_table_1_needs_a_judge(workdir, tmp_path, monkeypatch):
  """A colour model without weights of a judge still has the rest."""
  monkeypatch.setattr(efficientnet, "available", lambda: False)  # as where the extra is not installed
  trained = load(workdir).replace(shape=(8, 8, 3))
  task = study.Task(trained, tmp_path, "uniform", 0, 2, None, False)
  plan = cells.plan(task, (2,), (0.0,), (2,), 9, 9, 8, 4)
  assert plan["table2/S=2"].settings()["levels"] == [7, 1, 0]
  with pytest.raises(ValueError, match="need inception"):
    plan["table1/eta=0/S=2"].settings()


def test_names_of_cells_are_matched_up_to_a_slash():
  names = ["table1/eta=0/S=10", "table1/eta=0/S=100", "table2/S=10", "figure3"]
  assert paper.chosen(names, ("table1",)) == names[:2]
  assert paper.chosen(names, ("*/S=10",)) == [names[0], names[2]]
  assert paper.chosen(names, ()) == names
