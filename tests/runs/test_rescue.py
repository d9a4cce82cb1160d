"""Whatever ends a run but the training itself: what was computed is saved, and nothing is counted twice."""

import shutil
import signal
import sys

import jax
import numpy as np
import pytest

from ddim_jax import checkpoints, data
from ddim_jax.runs import evaluation, fit, hosts

pytestmark = pytest.mark.usefixtures("promotion")

PIXELS = np.random.default_rng(0).integers(0, 256, (16, 2, 2, 3), np.uint8)
QUICK = {"batch_size": 4, "warmup": 0, "learning_rate": 0.1, "ema": 0.5, "progress": False}
STEPS, AT = 12, 5
"""Updates in all, and that at which something goes wrong."""


def network():
  return lambda key, x, t: np.float32(0.5), lambda params, x, t: x * params


def run(workdir, images=PIXELS, **options):
  return fit(workdir, network(), images, steps=STEPS, **{"sample_every": 0} | QUICK | options)


@pytest.fixture(scope="module")
def whole(promotion, tmp_path_factory):
  """The metrics of all updates in one go, and the parameters after them."""
  workdir = tmp_path_factory.mktemp("whole")
  params = run(workdir).params
  return (workdir / "metrics.jsonl").read_bytes(), params


def at_step(act):
  """A log function that does something once."""
  return lambda step, values: act() if step == AT else None


def failing(error):
  def fail(*_):
    raise error

  return fail


def lost_picture(workdir):
  """A data set one of whose pictures goes away while the run reads it."""
  reads = []

  def read(rows):
    reads.append(rows)
    if len(reads) > AT + 1:
      raise ValueError("3.png cannot be used: No such file or directory")
    return PIXELS[rows], np.zeros(len(rows), np.int32)

  return {"images": data.in_memory("tiny", PIXELS)._replace(read=read)}


def no_folder_for_grids(workdir):
  (workdir / "samples").write_text("a file")
  return {"sample_every": AT, "save_every": 100}


def metrics_become_a_folder(workdir):
  def act():
    (workdir / "metrics.jsonl").unlink()
    (workdir / "metrics.jsonl").mkdir()

  return {"log": at_step(act), "save_every": AT + 2}


def evaluation_fails(workdir):
  return {"eval_every": AT, "inception": "nowhere"}


TROUBLE = {
  "log raises": lambda _: {"log": at_step(failing(RuntimeError("the server is gone")))},
  "log has no network": lambda _: {"log": at_step(failing(ConnectionResetError(104, "reset by peer")))},
  "log asks for memory": lambda _: {"log": at_step(failing(MemoryError()))},
  "log meets another type": lambda _: {"log": at_step(lambda: [].append(1, 2))},
  "log exits": lambda _: {"log": at_step(failing(StopIteration()))},
  "a picture is lost": lost_picture,
  "a grid cannot be drawn": no_folder_for_grids,
  "an evaluation fails": evaluation_fails,
  "what was compiled fails": lambda _: {"compiled": failing(OSError(12, "Cannot allocate memory"))},
  "decoding fails": lambda _: {"decode": failing(KeyError("decoder")), "sample_every": AT},
}


@pytest.mark.slow
@pytest.mark.parametrize("trouble", TROUBLE)
def test_an_error_beside_the_training_loses_no_update(trouble, whole, tmp_path, monkeypatch, capsys):
  if trouble == "an evaluation fails":
    monkeypatch.setattr(evaluation, "evaluator", lambda *_, **__: failing(ZeroDivisionError("judge")))
  options = TROUBLE[trouble](tmp_path)
  with pytest.raises(Exception, match=r".*") as caught:
    run(tmp_path, **options)
  assert not isinstance(caught.value, checkpoints.SaveError)
  (step,) = checkpoints.steps(tmp_path / "checkpoints")
  assert (1 if trouble == "what was compiled fails" else AT) <= step <= AT + 3
  assert f"saved at step {step}, because of the error below" in capsys.readouterr().out
  lines = (tmp_path / "metrics.jsonl").read_bytes()
  assert whole[0].startswith(lines)
  assert len(lines.splitlines()) == step
  if (tmp_path / "samples").is_file():
    (tmp_path / "samples").unlink()
  again = run(tmp_path)
  assert again.step == STEPS
  assert (tmp_path / "metrics.jsonl").read_bytes() == whole[0]
  np.testing.assert_array_equal(again.params, whole[1])


def test_metrics_that_cannot_be_written_cost_no_update(tmp_path):
  with pytest.raises(OSError, match=r"metrics\.jsonl"):
    run(tmp_path, **metrics_become_a_folder(tmp_path))
  assert checkpoints.steps(tmp_path / "checkpoints") == [AT + 2]


def test_who_clears_the_folder_of_tensorboard_ends_nothing(whole, tmp_path):
  clear = lambda: shutil.rmtree(tmp_path / "tensorboard", ignore_errors=True)
  assert run(tmp_path, log=at_step(clear), save_every=2).step == STEPS
  assert (tmp_path / "metrics.jsonl").read_bytes() == whole[0]
  assert len(list((tmp_path / "tensorboard").iterdir())) == 1


def test_an_update_that_is_not_finite_is_still_not_saved(tmp_path):
  """Saved with its count, the run could never go on."""
  network = (lambda key, x, t: np.float32(0.5), lambda params, x, t: x * params / 0)
  with pytest.raises(FloatingPointError):
    fit(tmp_path, network, PIXELS, steps=STEPS, sample_every=0, **QUICK)
  assert checkpoints.steps(tmp_path / "checkpoints") == []


def test_what_is_saved_already_is_not_saved_again(whole, tmp_path, capsys):
  with pytest.raises(RuntimeError):
    run(tmp_path, log=at_step(failing(RuntimeError("x"))), save_every=1)
  first = checkpoints.steps(tmp_path / "checkpoints")
  with pytest.raises(RuntimeError):
    run(tmp_path, log=lambda step, values: failing(RuntimeError("x"))(), save_every=1)
  assert checkpoints.steps(tmp_path / "checkpoints")[0] == first[-1]
  assert run(tmp_path).step == STEPS
  assert (tmp_path / "metrics.jsonl").read_bytes() == whole[0]


WARNINGS = ["SIGUSR1", "SIGUSR2", "SIGXCPU"]


@pytest.mark.slow
@pytest.mark.parametrize("name", WARNINGS)
def test_what_batch_systems_warn_with_saves(name, whole, tmp_path):
  number = getattr(signal, name)
  model = run(tmp_path, log=at_step(lambda: signal.raise_signal(number)))
  assert AT < model.step < STEPS
  assert checkpoints.steps(tmp_path / "checkpoints") == [model.step]
  assert signal.getsignal(number) is signal.SIG_DFL
  assert run(tmp_path).step == STEPS
  assert (tmp_path / "metrics.jsonl").read_bytes() == whole[0]


@pytest.mark.parametrize("name", WARNINGS)
def test_a_signal_that_somebody_else_hears_is_theirs(name, tmp_path):
  number, heard = getattr(signal, name), []
  before = signal.signal(number, lambda *_: heard.append(name))
  try:
    assert run(tmp_path, log=at_step(lambda: signal.raise_signal(number))).step == STEPS
  finally:
    signal.signal(number, before)
  assert heard == [name]


def test_a_handler_that_python_does_not_know_is_left_as_it_is(monkeypatch):
  """One that a library in C has set before Python began: it cannot be given back."""
  given, genuine = [], signal.signal
  monkeypatch.setattr(signal, "signal", lambda number, handler: given.append(genuine(number, handler)))
  with hosts.StopRequest():
    pass
  monkeypatch.undo()
  assert len(given) == 6
  for number, handler in zip(
    (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU),
    given, strict=True,
  ):  # fmt: skip
    signal.signal(number, handler)


@pytest.mark.slow
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize(
  "error", [BrokenPipeError(32, "x"), OSError(28, "x"), OSError(5, "x"), ValueError("x")]
)
def test_output_that_dies_in_the_middle_ends_nothing(stream, error, whole, tmp_path, monkeypatch):
  """A reader that has gone, a full disk, a terminal that has gone, a stream that was closed."""

  class Dying:
    encoding, isatty = "utf-8", lambda self: stream == "stderr"
    write = flush = failing(error)

  def die():
    monkeypatch.setattr(sys, stream, Dying())

  with monkeypatch.context():
    model = run(tmp_path, log=at_step(die), save_every=3, sample_every=4, progress=True)
  assert model.step == STEPS
  assert (tmp_path / "metrics.jsonl").read_bytes() == whole[0]


def test_the_folder_of_connected_processes_may_be_text_as_in_fit(monkeypatch):
  monkeypatch.setattr(jax.distributed, "initialize", lambda *_, **__: None)  # one process is all there is
  with hosts.connected("runs/a"):
    pass
