"""``ddim evaluate``: its distances are those of the images that a model draws; nothing is measured twice."""

import json

import jax
import numpy as np
import pytest

from ddim_jax import metrics
from ddim_jax.commands.evaluate_model import evaluate
from ddim_jax.commands.main import main
from ddim_jax.data import to_uint8
from ddim_jax.metrics import classifier
from ddim_jax.models import build, datasets
from ddim_jax.models import config as configs

NUM = 24


@pytest.fixture(scope="module")
def model(data_dir, tmp_path_factory):
  """A file with a tiny network of digits, 12 levels."""
  config = configs.Config(
    configs.Data("digits", data_dir),
    configs.Network(channels=4, multipliers=(1,), blocks=1, attention=(), dropout=0.0, groups=2),
    configs.Diffusion(levels=12, schedule="cosine"),
    configs.Optimisation(batch_size=8, warmup=0),
  )
  empty = build.from_config(config, (8, 8, 1), tuple("0123456789"))
  random = np.random.default_rng(0)
  params = jax.tree.map(lambda leaf: random.normal(0, 0.2, leaf.shape).astype(np.float32), empty.template())
  path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
  build.from_config(config, (8, 8, 1), tuple("0123456789"), params).save(path)
  return path


@pytest.fixture(scope="module")
def drawn_from(model, data_dir):
  """The model with the data beside it: a file does not say where they lie."""
  from ddim_jax import load

  found = load(model)
  return found, datasets.open_data(configs.Data("digits", data_dir))


@pytest.mark.slow
def test_its_distances_are_those_of_the_models_images(model, drawn_from, tmp_path, monkeypatch, capsys):
  """Computed here from the definition: the classifier's features of all data and of all samples."""
  out = tmp_path / "new" / "measured.json"
  arguments = {"num": NUM, "batch_size": 5, "seed": 3, "out": out}
  evaluate(str(model), steps=(3, 6), name="tiny", **arguments)
  held = json.loads(out.read_text())
  found, source = drawn_from
  look = classifier.extractor("digits").apply
  real = metrics.moments(np.asarray(look(source.read(np.arange(source.size))[0])[0]))
  for S in (3, 6):
    images = to_uint8(found.sample(NUM, steps=S, seed=3))
    made = metrics.moments(np.asarray(look(np.asarray(images))[0]))
    expected = metrics.frechet_distance(real, made).value
    assert held["rows"]["tiny, ddim"][str(S)]["frechet"] == pytest.approx(expected, rel=1e-4)
  assert held["settings"]["N"] == NUM
  assert out.with_suffix(".png").is_file()

  def refuse(*_, **__):
    raise AssertionError("measured again")

  evaluate(str(model), steps=(6,), solvers=("unipc2",), name="tiny", **arguments)
  with monkeypatch.context() as patched:  # what it holds is not drawn again
    patched.setattr("ddim_jax.runs.quality.drawn", refuse)
    evaluate(str(model), steps=(3, 6), name="tiny", **arguments)
  assert set(json.loads(out.read_text())["rows"]) == {"tiny, ddim", "tiny, unipc2"}
  table = capsys.readouterr().out.strip().splitlines()
  assert "| tiny, unipc2 |  | " in "\n".join(table)  # S = 3 was not asked for
  with pytest.raises(ValueError, match=r"out must hold measures of the same settings, .* seed 3, not 4"):
    evaluate(str(model), steps=(3,), **{**arguments, "seed": 4})
  assert set(json.loads(out.read_text())["rows"]) == {"tiny, ddim", "tiny, unipc2"}


@pytest.mark.parametrize(
  ("options", "message"),
  [
    (("--num", "1"), "--num must be an integer in [2, "),
    (("--steps", "13"), "S must be at most T: asked for 13 steps out of 12 levels"),
    (("--out", "measured.txt"), "--out must end in .json, got measured.txt"),
    (("--eta", "2"), "--eta must be in [0, 1], got 2"),
  ],
)
def test_bad_input_is_a_line(model, options, message, tmp_path, monkeypatch, capsys):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(SystemExit) as ended:
    main(["evaluate", str(model), *options])
  assert ended.value.code == 2
  assert message in capsys.readouterr().err
  assert not list(tmp_path.iterdir())


def test_a_file_that_is_something_else_stays(model, tmp_path):
  out = tmp_path / "mine.json"
  out.write_text('{"precious": 1}')
  with pytest.raises(ValueError, match="out must be a file of measures or none yet, got"):
    evaluate(str(model), steps=(3,), num=NUM, out=out)
  assert out.read_text() == '{"precious": 1}'
