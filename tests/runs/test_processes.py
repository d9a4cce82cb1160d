"""A run of several processes: the same model as of one, and none stays alone with a dead one or a signal."""

import json
import re
import shutil
import signal
import socket
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from ddim_jax import checkpoints
from tests.tiny_runs import arrays, assert_same_state, lines, newest, options, wait_for

SGD = ("--save-every", 20, "--eval-every", 20, "--eval-num", 30, "--optimizer", "sgd", "--learning-rate", 0.1)
"""Its updates are as wrong as a gradient is; Adam divides by its size."""


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
