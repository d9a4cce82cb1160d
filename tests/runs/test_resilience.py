"""What is promised for the day the machine goes away: real processes, real signals, real disks."""

import json
import random
import re
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest

from ddim_jax import checkpoints
from tests.helpers import small_file_system
from tests.tiny_runs import arrays, assert_same_state, lines, newest, options, wait_for


@pytest.fixture(scope="module")
def undisturbed(run, tmp_path_factory):
  """200 steps in one go."""
  workdir = tmp_path_factory.mktemp("undisturbed")
  run(*options(workdir, 200, "--save-every", 10))
  return workdir


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
