"""Names, locks, temporary files and streams: each by one rule for all."""

import io
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from ddim_jax import atomic, checkpoints, console, load, places
from ddim_jax.commands import outputs
from ddim_jax.runs import fit
from tests.helpers import ROOT

ADDRESSES = ["gs://b/r", "s3://bucket", "hf://a/b", "file:///tmp/x", "gs:/b/r", "https://a.b/c.ckpt"]


@pytest.mark.parametrize("address", ADDRESSES)
def test_addresses_are_refused_at_once(address, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for use in (
    places.local,
    load,
    lambda path: fit(path, None, np.zeros((4, 4, 4, 1), np.uint8), steps=1),
    lambda path: outputs.place(Path(path) / "x.png", "model", "x.png"),
  ):
    with pytest.raises(ValueError, match="must be on this machine"):
      use(address)
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  "name", ["[1]", "a*", "what?", "a\\b", "x]", "new\nline", "a.orbax-checkpoint-tmp-1"]
)
def test_names_that_orbax_takes_for_patterns_are_refused_before_the_first_step(name, tmp_path):
  with pytest.raises(ValueError, match="must be without"):
    fit(tmp_path / name, None, np.zeros((4, 4, 4, 1), np.uint8), steps=1)
  with pytest.raises(ValueError, match="must be without"), checkpoints.open_manager(tmp_path / name / "c"):
    pass
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  "name", ["a b", "{1}", "ü", "a,b", "$HOME", "-x", "a'b", 'a"b', "%s", "x.", "5", "(1)!"]
)
def test_other_names_can_be_read_back(name, tmp_path):
  folder = tmp_path / name / "c"
  with checkpoints.open_manager(folder) as manager:
    checkpoints.save(manager, 3, {"x": np.arange(3)}, {})
  np.testing.assert_array_equal(checkpoints.restore_latest(folder).arrays["x"], np.arange(3))


BLOCKED = {
  "a folder.png": "out must be a file",
  "a folder.npz": "out must be a file",
  "a file": "out must be a folder",
  "a file/x.png": "out must lie in a folder",
  "a file/x/y.npz": "out must lie in a folder",
  "a file/x": "out must lie in a folder",
  ".png": r"out must end in \.png",
  ".NPZ": r"out must end in \.png",
  "x.Jpeg": r"out must end in \.png",
  "n" * 300: "File name too long",
}


@pytest.mark.parametrize("name", BLOCKED)
def test_what_cannot_be_written_is_refused_before_the_work(name, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  for folder in ("a folder.png", "a folder.npz"):
    (tmp_path / folder).mkdir()
  (tmp_path / "a file").write_text("x")
  for out in (Path(name), tmp_path / name):
    with pytest.raises((ValueError, OSError), match=BLOCKED[name]):
      outputs.place(out, "model", "sample.png", (".png", ".npz", ""))
  assert len(list(tmp_path.rglob("*"))) == 3


def test_a_model_in_an_unknown_home_is_named():
  with pytest.raises(ValueError, match="model must have a home that is known"):
    outputs.place(None, "~no-such-user-at-all/run", "sample.png")


def test_a_folder_that_cannot_be_written_is_refused_and_others_pass(tmp_path, monkeypatch):
  for name in ("x.PNG", "new/x.npz", "new", "new/er", "..", "a.b/c"):
    outputs.place(tmp_path / name, "model", "sample.png", (".png", ".npz", ""))
  monkeypatch.setattr(os, "access", lambda *_: False)
  with pytest.raises(ValueError, match=r"out must lie in a folder that can be written, got .*x\.png"):
    outputs.place(tmp_path / "new" / "x.png", "model", "sample.png")


def test_the_home_is_expanded(monkeypatch, tmp_path):
  monkeypatch.setenv("HOME", str(tmp_path))
  assert places.local("~/x") == tmp_path / "x"
  assert places.local("a/~") == Path("a/~")
  for wrong in ("", "a\0b", "~no-such-user-at-all/x"):
    with pytest.raises(ValueError, match=r"^out must"):
      places.local(wrong, "out")


@pytest.mark.slow
def test_the_second_in_a_folder_is_refused_by_the_name_of_the_first(tmp_path):
  """A process, then a thread; a lock whose process was killed holds nothing."""
  code = (
    "import sys, time, pathlib, os; from ddim_jax.atomic import alone\n"
    "with alone(pathlib.Path(sys.argv[1]), 'is busy'): print(os.getpid(), flush=True); time.sleep(60)"
  )
  for path in (tmp_path, tmp_path / "x.npz"):
    other = subprocess.Popen(
      [sys.executable, "-c", code, str(path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    pid = other.stdout.readline().strip()
    with (
      pytest.raises(ValueError, match=f"is in use: process {pid} is drawing"),
      atomic.alone(path, "is drawing"),
    ):
      pass
    other.kill()
    other.communicate()
    with atomic.alone(path, "a"), pytest.raises(ValueError, match=f"process {os.getpid()} b"):  # noqa: SIM117
      with atomic.alone(path, "b"):
        pass
  assert not list(tmp_path.iterdir())


def test_two_samples_into_one_file_are_refused(tmp_path):
  draw = lambda indices: outputs.write_npz(tmp_path / "x.npz", 4, 2, draw, {}, (2, 2, 1))
  with pytest.raises(ValueError, match=r"x\.npz is in use: process \d+ is drawing into it"):
    draw(None)
  draw = lambda indices: outputs.write_files(tmp_path / "y", 4, 2, draw, {})
  with pytest.raises(ValueError, match="is in use"):
    draw(None)


def test_temporary_names_are_unique_and_nothing_is_left(tmp_path):
  path = tmp_path / ("n" * 250)
  seen, together = set(), threading.Barrier(8)

  def write(i):
    with atomic.replacing(path) as partial:
      seen.add(partial)
      together.wait()
      partial.write_text(str(i))
      together.wait()

  threads = [threading.Thread(target=write, args=(i,)) for i in range(8)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert len(seen) == 8
  assert list(tmp_path.iterdir()) == [path]
  with pytest.raises(KeyError), atomic.replacing(path) as partial:
    partial.write_text("half")
    raise KeyError
  assert list(tmp_path.iterdir()) == [path]


class Dead(io.StringIO):
  """A stream whose reader has gone."""

  def write(self, text):
    raise BrokenPipeError

  flush = lambda self: self.write("")


@pytest.mark.parametrize("stream", [None, Dead(), "closed"])
def test_output_never_ends_a_run(stream, monkeypatch):
  if stream == "closed":
    stream = io.StringIO()
    stream.close()
  monkeypatch.setattr(sys, "stderr", stream)
  monkeypatch.setattr(sys, "stdout", stream)
  with console.bar(total=3, mininterval=0) as bar:
    bar.update(2)
    bar.set_postfix_str("x")
  assert list(console.bar(iterable=range(3))) == [0, 1, 2]
  console.say("x")
  console.STDERR.write("x")
  console.STDERR.flush()
  assert not console.STDERR.isatty()


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_fault_and_their_numbers_are_not_those_of_files(closed, tmp_path):
  code = (
    "import sys, os; from ddim_jax.commands.main import main; main(['--version'])\n"
    f"print(open({str(tmp_path / 'x')!r}, 'w').fileno() > 2, file=open({str(tmp_path / 'said')!r}, 'w'))"
  )
  command = ["sh", "-c", f'exec "$0" -c "$1" {closed}', sys.executable, code]
  done = subprocess.run(command, cwd=ROOT, check=False)
  assert done.returncode == 0
  assert (tmp_path / "said").read_text().strip() == "True"
