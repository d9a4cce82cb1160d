"""Processes that measure one side of `experiments.bench.accelerator`: what they and their parent say.

A process gets a list of tasks and prints a line of JSON for each, ``{task: results}``, as soon as it is done:
when it is stopped for want of time, what it had measured is kept. A task's name is ``part/case/side``.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

Row = dict[str, Any]


class Group(NamedTuple):
  """Tasks of one process.

  Attributes:
    module: What is run: ``python -m MODULE``.
    tasks: Names, in the order of their importance.
    seconds: The longest that it may take.
    environment: Variables of its own.
  """

  module: str
  tasks: tuple[str, ...]
  seconds: float
  environment: dict[str, str]


def start(group: Group, settings: Row, seconds: float) -> dict[str, Row]:
  """Runs a group's process for at most so many seconds; returns what its tasks printed.

  A task that failed has ``{"error": ...}``; one that was not done is missing.
  """
  text = json.dumps(settings | {"tasks": group.tasks, "began": time.time()})
  with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
    process = subprocess.Popen(
      [sys.executable, "-m", group.module, text], env=os.environ | group.environment,
      stdout=output, stderr=errors, start_new_session=True,
    )  # fmt: skip
    try:
      process.wait(seconds)
    except subprocess.TimeoutExpired:
      pass
    finally:
      stopped = process.poll() is None
      if stopped:  # with the workers of torch.compile
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    output.seek(0)
    errors.seek(0)
    rows: dict[str, Row] = {}
    for line in output.read().splitlines():
      if line.startswith("{") and line.endswith("}"):
        rows |= json.loads(line)
    missing = next((name for name in group.tasks if name not in rows), None)
    if missing is not None:
      said = (errors.read().strip().splitlines() or ["no message"])[-1]
      if stopped:
        rows[missing] = {"not measured": f"stopped after {seconds:.0f} s"}
      else:
        rows[missing] = {"error": f"the process ended with status {process.returncode}: {said}"}
  return rows


def serve(tasks: Mapping[str, Callable[[], Row]]) -> None:
  """Does the tasks in turn and prints what they return; a task that raises is reported as that."""
  for name, task in tasks.items():
    try:
      row = task()
    except Exception as error:  # whatever it is, the other tasks still have their turn
      lines = str(error).strip().splitlines()
      row = {"error": f"{type(error).__name__}: {lines[0] if lines else ''}"[:300]}
    print(json.dumps({name: row}), flush=True)


def settings() -> Row:
  """What the parent said."""
  return json.loads(sys.argv[1])


def timed(call: Callable[[], Any], rounds: int, work: int, before: int = 1) -> Row:
  """Times a call that has finished its work when it returns.

  Args:
    call: What is timed; the first call, which compiles, is reported on its own.
    rounds: How often it is timed.
    work: Images and steps, or whatever a call does, by which the time is divided.
    before: Calls after the first that are not counted.

  Returns:
    Median, least and largest milliseconds for a unit of work.
  """
  began = time.perf_counter()
  call()
  first = time.perf_counter() - began
  for _ in range(before):
    call()
  taken = []
  for _ in range(rounds):
    began = time.perf_counter()
    call()
    taken.append(1e3 * (time.perf_counter() - began) / work)
  return {
    "milliseconds": round(statistics.median(taken), 6),
    "range": [round(min(taken), 6), round(max(taken), 6)],
    "first_call_seconds": round(first, 2),
  }


def folder(given: Row) -> Path:
  """The network as a folder of diffusers."""
  return Path(given["folder"])
