"""What is promised for the day the machine goes away: real processes, real signals, real files."""

import json
import random
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from ddim_jax import checkpoints
from tests.helpers import small_file_system

NETWORK = ("--width", 16, "--multipliers", 1, "--blocks", 1, "--attention")  # attention in the middle only
TINY = (*NETWORK, "--batch-size", 16, "--warmup", 5, "--sample-every", 0)


def options(workdir, steps, *more):
  return ("ddim_jax.__main__", "train", "digits", "--workdir", workdir, "--steps", steps, *TINY, *more)


def arrays(workdir, step=None):
  return checkpoints.restore_latest(workdir / "checkpoints", step).arrays


def assert_same_state(a, b, **tolerance):
  assert a.keys() == b.keys()
  for name in a:
    if tolerance:
      np.testing.assert_allclose(a[name], b[name], err_msg=name, **tolerance)
    else:
      assert a[name].tobytes() == b[name].tobytes(), name


def wait_for(condition, seconds=120, every=0.02):
  deadline = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < deadline, "waited too long"
    time.sleep(every)


def lines(workdir):
  path = workdir / "metrics.jsonl"
  return path.read_text().splitlines() if path.exists() else []


@pytest.fixture(scope="module")
def undisturbed(run, tmp_path_factory):
  """200 steps in one go."""
  workdir = tmp_path_factory.mktemp("undisturbed")
  run(*options(workdir, 200, "--save-every", 10))
  return workdir


def newest(workdir):
  return max(checkpoints.steps(workdir / "checkpoints"), default=0)


def saving(workdir):
  """Whether a checkpoint is being written at this moment."""
  return any((workdir / "checkpoints").glob("*.orbax-checkpoint-tmp*"))


@pytest.mark.slow
def test_killed_6_times_the_run_ends_bit_for_bit_the_same(undisturbed, spawn, run, tmp_path):
  """In turn while starting, during a save, after some progress, and during a save."""
  rng, during_save = random.Random(0), 0
  command = options(tmp_path, 200, "--save-every", 10)
  for attempt in range(6):
    before = newest(tmp_path)
    process = spawn(*command)
    if attempt % 2:
      wait_for(lambda: saving(tmp_path) and process.poll() is None, every=0.0005)  # noqa: B023
    elif attempt % 4:
      wait_for(lambda: newest(tmp_path) > before)  # noqa: B023
      time.sleep(rng.uniform(0, 0.2))
    else:
      time.sleep(rng.uniform(0, 4))
    assert process.poll() is None, f"the run ended before kill {attempt}, at step {newest(tmp_path)}"
    process.kill()
    process.communicate()
    during_save += saving(tmp_path)
  assert during_save >= 2
  run(*command)
  assert_same_state(arrays(tmp_path), arrays(undisturbed))
  assert (tmp_path / "metrics.jsonl").read_bytes() == (undisturbed / "metrics.jsonl").read_bytes()
  assert [json.loads(line)["step"] for line in lines(tmp_path)] == list(range(1, 201))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_saves_and_says_how_to_go_on(undisturbed, spawn, finish, run, tmp_path, number, status):
  process = spawn(*options(tmp_path, 10**6, "--save-every", 10**6))
  wait_for(lambda: "0/1000000 [" in process.errors())  # the bar, which comes when the update is compiled
  time.sleep(0.5)
  began = time.monotonic()
  process.send_signal(number)
  done = finish(process, status)
  assert time.monotonic() - began < 30
  (step,) = re.findall(r"stopped and saved at step ([\d,]+) in \S+; the same command goes on", done.stdout)
  step = step.replace(",", "")
  assert "Traceback" not in done.stderr
  assert checkpoints.steps(tmp_path / "checkpoints") == [int(step)]
  assert len(lines(tmp_path)) == int(step)
  common = min(int(step), 200)
  assert lines(tmp_path)[:common] == lines(undisturbed)[:common]


@pytest.mark.slow
def test_the_allotted_time_ends_like_a_signal(run_here, tmp_path):
  done = run_here(*options(tmp_path, 10**6, "--max-minutes", 0.05))
  assert "stopped and saved at step" in done.stdout


def free_port():
  with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    return s.getsockname()[1]


def two_processes(spawn, workdir, steps, *more, devices=2):
  port = free_port()
  return [
    spawn(
      *options(workdir, steps, *more, "--coordinator", f"127.0.0.1:{port}"),
      "--num-processes", 2, "--process-id", i, devices=devices,
    )
    for i in range(2)
  ]  # fmt: skip


SGD = ("--save-every", 20, "--eval-every", 20, "--eval-num", 30, "--optimizer", "sgd", "--learning-rate", 0.1)
"""Its updates are as wrong as a gradient is; Adam divides by its size."""


@pytest.fixture(scope="module")
def alone(run, tmp_path_factory):
  """80 steps of one process with one device, by SGD."""
  workdir = tmp_path_factory.mktemp("alone")
  run(*options(workdir, 80, *SGD, "--keep", 10))
  return workdir


def kill_one(processes, victim):
  """Kills one of two processes; returns how the other ended, what it said and the seconds until then."""
  processes[victim].kill()
  began, survivor = time.monotonic(), processes[1 - victim]
  wait_for(lambda: survivor.poll() is not None)
  seconds = time.monotonic() - began
  wait_for(lambda: "Start all of them again with the same commands" in survivor.errors())  # by its watcher
  said = " ".join(survivor.errors().split())
  for process in processes:
    process.communicate()
  return survivor.returncode, said, seconds


def assert_death(death):
  status, said, seconds = death
  assert status != 0
  assert seconds < 40
  assert "another process of this run died" in said


class Story(NamedTuple):
  """What became of a run of two processes with two devices each.

  Attributes:
    workdir: Its folder, with checkpoints of every 20th step.
    death: Of its second process, see `kill_one`.
    reached: The newest checkpoint by then.
    stopped: What both wrote when, started again, one of them had been sent a signal.
    seconds: How long that took.
  """

  workdir: Path
  death: tuple
  reached: int
  stopped: list[str]
  seconds: float


@pytest.fixture(scope="module")
def together(spawn, finish, tmp_path_factory):
  """A `Story`: the second process dies, both start again, and a signal to the second ends it."""
  workdir = tmp_path_factory.mktemp("together")
  start = lambda: two_processes(spawn, workdir, 10**6, *SGD, "--keep", 10)
  processes = start()
  wait_for(lambda: newest(workdir))
  death, reached = kill_one(processes, 1), newest(workdir)
  processes = start()
  wait_for(lambda: newest(workdir) > reached)
  began = time.monotonic()
  processes[1].send_signal(signal.SIGTERM)
  stopped = [finish(process).stdout for process in processes]
  return Story(workdir, death, reached, stopped, time.monotonic() - began)


@pytest.mark.slow
def test_two_processes_of_two_devices_train_the_same_model_as_one(alone, together):
  """And find it equally good: each draws half of the images of an evaluation."""
  assert "4 x cpu (cpu), 2 processes" in together.stopped[0]
  parameters = lambda tree: {n: a for n, a in tree.items() if n.startswith(("params.", "ema."))}
  two, one = (parameters(arrays(folder, 20)) for folder in (together.workdir, alone))
  assert_same_state(two, one, atol=1e-5)
  two, one = (json.loads(lines(folder)[19])["frechet"] for folder in (together.workdir, alone))
  assert two == pytest.approx(one, rel=1e-3)


@pytest.mark.slow
def test_when_a_process_dies_the_other_ends_and_both_go_on(alone, together):
  assert_death(together.death)
  assert f"step {together.reached} of" in together.stopped[0]
  losses = [[json.loads(line)["loss"] for line in lines(folder)[:80]] for folder in (together.workdir, alone)]
  assert len(losses[0]) > together.reached
  np.testing.assert_allclose(losses[0], losses[1][: len(losses[0])], rtol=1e-3)
  two, one = (arrays(folder, together.reached + 20) for folder in (together.workdir, alone))
  assert_same_state(two, one, atol=1e-3)


@pytest.mark.slow
def test_when_the_first_process_dies_the_other_ends(spawn, tmp_path):
  """Though the first is the one that the second reports to."""
  processes = two_processes(spawn, tmp_path, 10**6, *SGD)
  wait_for(lambda: newest(tmp_path))
  assert_death(kill_one(processes, 0))


@pytest.mark.slow
def test_a_signal_to_one_of_two_processes_stops_both_at_the_same_step(together):
  assert together.seconds < 30
  (said,) = re.findall(r"stopped and saved at step ([\d,]+)", together.stopped[0])
  step = int(said.replace(",", ""))
  assert checkpoints.steps(together.workdir / "checkpoints") == [*range(20, step, 20), step]
  assert len(lines(together.workdir)) == step


@pytest.mark.slow
def test_a_run_moves_between_numbers_of_processes_and_devices(alone, together, run, tmp_path):
  """Two processes of two devices, then one, then one of four devices."""
  later = lambda folder, names: [name for name in names if name.isdigit() and int(name) > 20]
  shutil.copytree(together.workdir, tmp_path, dirs_exist_ok=True, ignore=later)
  for steps, devices in ((40, 1), (60, 4)):
    run(*options(tmp_path, steps, *SGD), devices=devices)
  assert len(lines(tmp_path)) == 60
  losses = [[json.loads(line)["loss"] for line in lines(folder)[:60]] for folder in (tmp_path, alone)]
  np.testing.assert_allclose(*losses, rtol=1e-4)
  assert_same_state(arrays(tmp_path), arrays(alone, 60), atol=1e-4)


@pytest.fixture(scope="module")
def short(run, tmp_path_factory):
  """Checkpoints of steps 3 and 6."""
  workdir = tmp_path_factory.mktemp("short")
  run(*options(workdir, 6, "--save-every", 3))
  return workdir


def harm(path, how):
  raw = path.read_bytes()
  if how == "deleted":
    path.unlink()
  elif how == "truncated":
    path.write_bytes(raw[: len(raw) // 2])
  else:
    flipped = bytearray(raw)
    flipped[len(raw) // 2] ^= 0x10
    path.write_bytes(flipped)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # other reads of a failed one
@pytest.mark.parametrize("how", ["deleted", "truncated", "flipped"])
def test_damage_to_any_file_is_reported_or_without_effect(short, tmp_path, how):
  """Every file of the newest step in turn: never a silently wrong value."""
  files = [f.relative_to(short) for f in (short / "checkpoints" / "6").rglob("*") if f.is_file()]
  sound = {step: arrays(short, step) for step in (3, 6)}
  assert len(files) > 5
  reported = 0
  for number, name in enumerate(files):
    copy = tmp_path / str(number)
    shutil.copytree(short, copy)
    harm(copy / name, how)
    messages = []
    with checkpoints.open_manager(copy / "checkpoints") as manager:
      restored = checkpoints.restore_newest_sound(manager, messages.append)
      assert_same_state(restored.arrays, sound[restored.step])
      if restored.step == 3:
        reported += 1
        (message,) = messages
        assert message.startswith("step 6 ")
        checkpoints.save(manager, 6, {"x": np.zeros(3)}, {})
      else:
        assert messages == [], name  # a file that holds nothing that is restored
    if restored.step == 3:
      assert checkpoints.restore_latest(copy / "checkpoints").arrays.keys() == {"x"}
  assert reported >= 3


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # as above
@pytest.mark.parametrize("how", ["deleted", "empty directory"])
def test_a_run_with_a_damaged_checkpoint_goes_on_from_the_one_before(short, run, run_here, tmp_path, how):
  workdir = tmp_path / "run"
  shutil.copytree(short, workdir)
  newest = workdir / "checkpoints" / "6"
  if how == "empty directory":
    shutil.rmtree(newest)
    newest.mkdir()
  else:
    harm(max((newest / "state").rglob("*"), key=lambda f: f.stat().st_size * f.is_file()), how)
  assert "DAMAGED" in run_here("ddim_jax.__main__", "inspect", workdir, status=1).stdout
  done = run(*options(workdir, 6, "--save-every", 3))
  assert "warning: step 6 " in done.stdout
  assert "step 3 of 6" in done.stdout
  assert_same_state(arrays(workdir), arrays(short))
  assert (workdir / "metrics.jsonl").read_bytes() == (short / "metrics.jsonl").read_bytes()
  report = run_here("ddim_jax.__main__", "inspect", workdir).stdout
  assert re.search(r"step +6 .*MB +sound", report)
  assert "channels 16" in report
  assert "last metrics: step 6, " in report
  assert (workdir / "loss.png").stat().st_size > 5000


@pytest.fixture
def small_disk(tmp_path):
  """A file system of 12 MB."""
  folder = tmp_path / "disk"
  folder.mkdir()
  with small_file_system(folder, "12m"):
    yield folder


def test_a_full_disk_is_one_line_and_loses_nothing(small_disk, run):
  workdir = small_disk / "run"
  done = run(*options(workdir, 200, "--save-every", 2, "--keep", 100), status=2)
  (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
  assert "No space left on device" in line
  assert str(small_disk) in line
  assert "Traceback" not in done.stderr
  saved = checkpoints.steps(workdir / "checkpoints")
  assert len(saved) >= 2
  for step in saved:
    assert arrays(workdir, step)
  (small_disk / "run" / "metrics.jsonl").touch()
  for step in saved[:-1][:2]:  # room for more than one
    shutil.rmtree(workdir / "checkpoints" / str(step))
  done = run(*options(workdir, saved[-1] + 1, "--save-every", 2))
  assert f"done: {saved[-1] + 1} steps" in done.stdout


def test_a_read_only_disk_is_one_line(small_disk, run):
  subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
  done = run(*options(small_disk / "run", 5), status=2)
  (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
  assert "Read-only file system" in line
  assert str(small_disk) in line


@pytest.mark.slow
def test_an_asynchronous_failure_is_noticed_at_the_end(small_disk):
  """The first save fits; the second, the last of the run, cannot."""
  with pytest.raises(checkpoints.SaveError, match=f"{small_disk}.*No space left"):  # noqa: SIM117
    with checkpoints.open_manager(small_disk / "c") as manager:
      rng = np.random.default_rng(0)
      for step in (1, 2):
        checkpoints.save(manager, step, {"x": rng.integers(0, 2**62, 800_000)}, {})
        if step == 1:
          manager.wait_until_finished()
  assert checkpoints.restore_latest(small_disk / "c", 1).step == 1


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_the_run_before_it_is_saved(run_here, tmp_path):
  unstable = ("--optimizer", "sgd", "--clip", 1e30, "--learning-rate", 1e25, "--warmup", 0)
  command = options(tmp_path / "a", 30, "--save-every", 1, *unstable)
  done = run_here(*command, status=1)
  (step,) = re.findall(r"error: loss or gradient was not finite at step (\d+)", done.stderr)
  assert re.search(r"Last checkpoint: step \d+", done.stderr)
  for saved in checkpoints.steps(tmp_path / "a" / "checkpoints"):
    assert saved < int(step)
    assert all(np.isfinite(a).all() for a in arrays(tmp_path / "a", saved).values() if a.dtype == np.float32)
  run_here(*options(tmp_path / "b", 6, "--save-every", 1, *unstable, "--max-skipped", 10))
  assert int(arrays(tmp_path / "b")["skipped"]) > 0


def test_the_best_is_kept_with_the_newest_and_every_nth(tmp_path):
  metrics = {1: 5.0, 2: 1.0, 3: 4.0, 5: 3.0, 6: 2.0, 7: 9.0, 8: 8.0, 9: 7.0}
  with checkpoints.open_manager(tmp_path / "c", keep=2, keep_every=5) as manager:
    for step, metric in metrics.items():
      checkpoints.save(manager, step, {"x": np.zeros(3)}, {}, metric=metric)
    manager.wait_until_finished()
    assert sorted(manager.all_steps()) == [2, 5, 8, 9]
