"""What a person sees while a run compiles or draws, and of the time that is left."""

import io
import os
import subprocess
import sys
import time

import pytest

from ddim_jax.runs import progress
from ddim_jax.runs.waiting import waiting
from tests.helpers import ROOT

CODE = """
import time
from ddim_jax.runs.waiting import waiting
with waiting("compiling"):
  time.sleep(2.4)
"""


@pytest.mark.slow
def test_seconds_are_counted_on_a_terminal():
  controller, terminal = os.openpty()
  environment = os.environ | {"PYTHONPATH": str(ROOT)}
  done = subprocess.run(
    [sys.executable, "-c", CODE],
    stderr=terminal,
    stdout=subprocess.PIPE,
    text=True,
    check=True,
    env=environment,
  )
  os.close(terminal)
  shown = os.read(controller, 10_000).decode()
  assert "compiling ... 1 s" in shown
  assert "compiling ... 2 s" in shown
  assert shown.endswith("\r\x1b[K")  # the line is cleared for what comes next
  assert done.stdout == "compiling took 2 s\n"


def test_a_log_says_when_it_begins_and_ends(capsys):
  with waiting("compiling"):
    pass
  with waiting("drawing", show=False):
    pass
  assert capsys.readouterr().out == "compiling ...\n"


@pytest.mark.parametrize(
  ("limit", "expected"),
  [
    (None, "16:39 left]"),
    (1000.0, "16:39 left]"),
    (30.0, "00:29 left, time is up at about step 300]"),
  ],
)
def test_the_time_left_is_until_the_deadline_if_that_comes_first(limit, expected, monkeypatch):
  """Ten steps of a tenth of a second, by a clock that jumps instead of waiting, of 10,000."""
  now = [100.0]
  monkeypatch.setattr(time, "monotonic", lambda: now[0])
  stderr = io.StringIO()
  monkeypatch.setattr(sys, "stderr", stderr)
  bar = progress.Progress(0, 10_000, batch_size=8, deadline=None if limit is None else now[0] + limit)
  for _ in range(10):
    now[0] += 0.1
    bar.step(1.0)
  bar.close()
  assert f"loss 1.0000, 80 images/s, {expected}" in stderr.getvalue()
