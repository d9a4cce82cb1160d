import json

import jax
import pytest

from experiments.bench import measure, peers
from experiments.bench.compile import compile_times
from experiments.bench.features import features
from experiments.bench.many_devices import scaling
from experiments.bench.memory import memory
from experiments.bench.pipeline import pipeline
from experiments.bench.sample import sample
from experiments.bench.solvers import solvers
from experiments.bench.train import train


@pytest.fixture(autouse=True)
def promotion_as_in_programs():
  """Optax multiplies floats by the step number."""
  with jax.numpy_dtype_promotion("standard"):
    yield


def written(folder):
  (path,) = folder.glob("*.json")
  assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
  results = json.loads(path.read_text())
  assert "cores" in results["machine"]
  return results


@pytest.mark.parametrize(("before", "expected"), [(1, "ababab"), (3, "aaabbbabab")])
def test_alternates_and_leaves_out_the_first_calls(before, expected):
  calls = []
  sides = {name: lambda name=name: calls.append(name) for name in "ab"}
  seconds = measure.alternate(sides, 2, before)
  assert "".join(calls) == expected
  assert {name: len(times) for name, times in seconds.items()} == {"a": 2, "b": 2}


def test_ratios_are_taken_round_by_round(monkeypatch):
  """A machine that slows down to a half does not change who is twice as fast."""
  taken = {"ours": [1.0, 2.0], "peer": [2.0, 4.0], "product": [1.0, 1.0], "convolution": [1.0, 1.0]}
  monkeypatch.setattr(
    measure, "alternate", lambda sides, rounds, before: {name: taken[name] for name in sides}
  )
  sides = {"ours": lambda: None, "peer": lambda: None}
  results = measure.compare(sides, rounds=2, images=2, work=6.0, ours="ours")["sides"]
  assert results["peer"]["times_ours_median"] == 2
  assert results["peer"]["times_ours_range"] == [2, 2]
  assert results["ours"]["seconds_per_image"] == 0.75
  assert results["ours"]["gflop_per_second"] == 4
  assert results["ours"]["fraction_of_product_rate"] == pytest.approx(4 / (10 * 2 * 1.536**3), abs=1e-4)


@pytest.mark.bench
def test_features(tmp_path):
  pytest.importorskip("efficientnet_lite_pytorch")
  features(batch_size=2, rounds=1, out=tmp_path)
  results = written(tmp_path)
  assert results["largest_difference"] <= 1e-4
  assert len(results["sides"]) == 3


@pytest.mark.bench
def test_sample(tmp_path):
  pytest.importorskip("diffusers")
  sample("tiny", batch_size=2, steps=2, rounds=1, compiled=False, out=tmp_path)
  results = written(tmp_path)
  assert results["largest_difference_of_a_step"] <= 1e-4
  sides = results["sides"]
  assert {"diffusers, eager", "diffusers, channels_last", "ddim_jax, S bare network calls"} <= set(sides)


@pytest.mark.bench
def test_sample_refuses_to_time_other_images(tmp_path, monkeypatch):
  pytest.importorskip("diffusers")
  pipe, loaded = peers.both("tiny")
  wrong = loaded._replace(timesteps=lambda steps: loaded.timesteps(steps) + 50)
  monkeypatch.setattr(peers, "both", lambda network: (pipe, wrong))
  with pytest.raises(ValueError, match="must agree"):
    sample("tiny", batch_size=2, steps=2, rounds=1, compiled=False, out=tmp_path)


@pytest.mark.bench
def test_train(tmp_path):
  pytest.importorskip("diffusers")
  train("tiny", batch_size=4, rounds=1, out=tmp_path)
  assert set(written(tmp_path)["sides"]) == {"ddim_jax", "torch, eager", "torch, eager, channels_last"}


@pytest.mark.bench
def test_compile(tmp_path):
  pytest.importorskip("diffusers")
  compile_times("tiny", batch_size=4, steps=(2,), rounds=1, out=tmp_path)
  assert written(tmp_path)["seconds"]["compile the sampler, S = 2"] > 0


@pytest.mark.bench
def test_memory(tmp_path):
  pytest.importorskip("diffusers")
  memory("tiny", batch_size=4, stream=(4,), out=tmp_path)
  results = written(tmp_path)
  assert set(results["peak_megabytes"]) == {"draw 4", "train", "train, remat", "train, torch eager"}
  assert min(results["peak_megabytes"].values()) > 100
  assert results["remat_over_plain"] < 1


@pytest.mark.bench
def test_pipeline(tmp_path):
  pipeline("digits", batch_size=8, steps=3, rounds=1, images=300, out=tmp_path)
  results = written(tmp_path)
  assert set(results["prefetched_32x32_images_per_second"]) == {"in memory", "memory-mapped"}
  assert results["pipeline_over_training"] > 1
  assert 0 <= results["fraction_waited_largest"] < 1


@pytest.mark.bench
def test_solvers(tmp_path):
  pytest.importorskip("diffusers")
  solvers("tiny", batch_size=2, evaluations=3, names=("ddim", "heun"), rounds=1, out=tmp_path)
  assert set(written(tmp_path)["sides"]) == {"ddim", "heun"}


@pytest.mark.bench
def test_scaling(tmp_path):
  scaling("digits", batch_size=2, devices=(2,), steps=1, rounds=1, out=tmp_path)
  assert written(tmp_path)["overhead"] == {"2": 0}


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda: sample("tiny", batch_size=0), "--batch-size must be positive, got 0"),
    (lambda: train("tiny", rounds=0), "--rounds must be positive, got 0"),
    (lambda: train("tiny", batch_size=5), "--batch-size must be a multiple of the 4 devices, got 5"),
    (lambda: pipeline("nothing"), "--preset must be one of"),
    (lambda: solvers("tiny", names=("ddpm",)), "deterministic"),
    (lambda: scaling(batch_size=3), "--batch-size must be a multiple"),
  ],
)
def test_refuses(call, message):
  with pytest.raises(ValueError, match=message):
    call()


def test_refuses_less_than_a_step():
  pytest.importorskip("diffusers")
  with pytest.raises(ValueError, match="--evaluations must give every solver a step, got 5"):
    solvers("tiny", names=("pndm",), evaluations=5)
