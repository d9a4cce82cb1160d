"""Help and output of every program on any terminal, pipe and disk: quick, whole or quietly ended."""

import errno
import fcntl
import io
import os
import runpy
import struct
import subprocess
import sys
import termios
import time

import jax
import numpy as np
import pytest
from PIL import Image

from ddim_jax import console
from ddim_jax.commands import cli, main
from ddim_jax.seeds import key_of
from tests.helpers import ROOT

COLUMNS = [
  "1", "2", "0", "-3", "20", "59", "60", "200", "201", "1000000", "999999999999", "9" * 5000, " 7 ", "+5",
  "1_0", "\N{FULLWIDTH DIGIT FOUR}", "1e3", "0x10", "nonsense", "",
]  # fmt: skip
PROGRAMS = {
  "ddim": ("ddim_jax", ["--help"]),
  "nothing": ("ddim_jax", []),
  "version": ("ddim_jax", ["--version"]),
  **{name: ("ddim_jax", [name, "--help"]) for name in main.COMMANDS},
  "digits": ("ddim_jax", ["train", "digits", "--help"]),
  "-h": ("ddim_jax", ["sample", "-h"]),
  "paper": ("experiments.paper", ["--help"]),
  "demo": ("experiments.demo", ["--help"]),
  "train_cifar": ("experiments.train_cifar", ["--help"]),
  "train_for_minutes": ("experiments.train_for_minutes", ["digits", "--help"]),
  "noise_floor": ("experiments.studies.noise_floor", ["--help"]),
  "bench": ("experiments.bench", ["--help"]),
  "bench train": ("experiments.bench", ["train", "--help"]),
}
QUICK = ("ddim", "sample", "paper")
"""Tried by the quick tests."""
programs = pytest.mark.parametrize(
  "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in PROGRAMS]
)


@pytest.fixture
def program(monkeypatch, compilation_cache):
  """Runs a program in this process; returns the status with which it ends."""

  def run(name, stdout=None):
    module, words = PROGRAMS[name]
    monkeypatch.setattr(cli, "prepare", lambda batch_size=0: None)  # the device count of this process is set
    monkeypatch.setattr(sys, "argv", [module, *words])
    if stdout is not None:
      monkeypatch.setattr(sys, "stdout", stdout)
    try:
      with jax.numpy_dtype_promotion("standard"), monkeypatch.context() as patched:
        for name in (module, f"{module}.__main__"):  # as in a process of its own: other tests import it
          patched.delitem(sys.modules, name, raising=False)
        runpy.run_module(module, run_name="__main__")
    except SystemExit as ended:
      return ended.code or 0
    return 0

  monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)  # programs replace it
  monkeypatch.setattr(os, "dup2", lambda *_: None)  # 1 is pytest's
  return run


@pytest.mark.parametrize("columns", COLUMNS)
def test_help_is_quick_and_readable_whatever_columns_says(columns, program, monkeypatch, capsys):
  monkeypatch.setenv("COLUMNS", columns)
  began = time.process_time()
  assert program("sample") == 0
  assert time.process_time() - began < 20
  lines = capsys.readouterr().out.splitlines()
  assert any("--guidance" in line for line in lines)
  assert 40 < max(map(len, lines)) <= 200


@programs
def test_every_program_has_help_in_one_column(name, program, monkeypatch, capsys):
  monkeypatch.setenv("COLUMNS", "1")
  began = time.process_time()
  assert program(name) == 0
  assert time.process_time() - began < 30
  assert capsys.readouterr().out.strip()


@pytest.mark.slow
def test_a_program_is_called_by_its_own_name_in_its_help(program, monkeypatch, capsys):
  monkeypatch.setenv("COLUMNS", "200")
  assert program("train_for_minutes") == 0
  assert capsys.readouterr().out.startswith("usage: python -m experiments.train_for_minutes digits ")


class Lost(io.TextIOBase):
  """A stream that takes all and cannot put it anywhere, as of a full disk; or that fails at once."""

  encoding = "utf-8"

  def __init__(self, number, at_once):
    self.error, self.at_once, self.held = OSError(number, os.strerror(number)), at_once, False
    if number == errno.EPIPE:
      self.error = BrokenPipeError(number, os.strerror(number))

  def write(self, text):
    self.held = True
    if self.at_once:
      raise self.error
    return len(text)

  def flush(self):
    if self.held:
      raise self.error

  def close(self):
    self.held = False  # Python 3.13 says, when it collects a stream, that it could not be flushed
    super().close()


@programs
@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize("number", [errno.EPIPE, errno.ENOSPC, errno.EIO])
def test_output_that_goes_nowhere_ends_a_program_in_a_line(name, number, at_once, program, capsys):
  status = program(name, Lost(number, at_once))
  said = capsys.readouterr().err
  if number == errno.EPIPE:
    assert (status, said) == (141, "")
  else:
    assert (status, said) == (1, f"error: standard output cannot be written: {os.strerror(number)}\n")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437", "utf-16", "utf-8"])
@programs
def test_an_encoding_without_some_letters_is_no_fault(name, encoding, program):
  page = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
  assert program(name, page) == 0
  page.flush()
  assert page.buffer.getvalue()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_names_of_classes_are_printed_in_any_encoding(encoding, tmp_path, monkeypatch):
  for name in ("Hündchen", "猫", "a\udcff"):
    folder = os.fsencode(tmp_path / "photos" / name)
    os.makedirs(folder)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(os.fsdecode(folder) + "/1.png")
  page = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
  monkeypatch.setattr(sys, "stdout", page)
  monkeypatch.setattr(cli, "prepare", lambda batch_size=0: None)
  monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
  with pytest.raises(SystemExit) as ended:
    main.main(["inspect", str(tmp_path / "photos"), "--out", str(tmp_path / "x.png")])
  assert ended.value.code == 0
  page.flush()
  said = page.buffer.getvalue().decode(encoding)
  assert r"\u732b" in said
  assert ("Hündchen" in said) == (encoding == "latin-1")


def test_work_is_done_before_a_reader_that_has_gone_ends_a_program(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(sys, "stdout", Lost(errno.EPIPE, False))
  monkeypatch.setattr(os, "dup2", lambda *_: None)
  monkeypatch.setattr(cli, "prepare", lambda batch_size=0: None)
  monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
  monkeypatch.setattr(sys, "argv", ["ddim"])
  with jax.numpy_dtype_promotion("standard"), pytest.raises(SystemExit) as ended:
    main.main(["export", "fashion_mnist", str(tmp_path / "x.safetensors")])
  assert ended.value.code == 141
  assert (tmp_path / "x.safetensors").stat().st_size > 1_000_000
  assert capsys.readouterr().err == ""


def test_an_error_is_said_even_if_nobody_reads_the_output(monkeypatch, capsys):
  monkeypatch.setattr(sys, "stdout", Lost(errno.EPIPE, False))
  monkeypatch.setattr(os, "dup2", lambda *_: None)

  def program():
    console.say("something")
    key_of(-1)

  monkeypatch.setattr(cli, "prepare", lambda batch_size=0: None)
  monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
  with pytest.raises(SystemExit):
    cli.run(program, options=frozenset({"seed"}))
  assert capsys.readouterr().err.startswith("error: --seed must be an integer in [0, ")


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch):
  monkeypatch.setattr(sys, "stdout", Lost(errno.EPIPE, False))
  monkeypatch.setattr(cli, "prepare", lambda batch_size=0: None)
  monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)

  def program():
    console.say("something")
    raise ZeroDivisionError("a fault")

  with pytest.raises(ZeroDivisionError, match="a fault"):
    cli.run(program)


def started(words, **options):
  environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
  return subprocess.Popen(
    [sys.executable, "-m", *words], cwd=ROOT, stderr=subprocess.PIPE, text=True, env=environment, **options
  )


@pytest.mark.slow
@pytest.mark.parametrize("columns", [0, 1, 3, 59, 5000, 65535])
def test_help_on_a_terminal_of_so_many_columns(columns):
  """Without the variable: a narrow pane, or one whose size nobody has set."""
  controller, terminal = os.openpty()
  fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
  with started(["ddim_jax", "export", "--help"], stdout=terminal) as process:
    os.close(terminal)
    shown, deadline = b"", time.monotonic() + 100
    while time.monotonic() < deadline:
      try:
        part = os.read(controller, 100_000)
      except OSError:  # the other end is closed
        break
      shown += part
    os.close(controller)
    assert process.wait(timeout=10) == 0
  text = shown.decode()
  assert "--half" in text
  assert max(len(line) for line in text.splitlines()) > 40


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ddim", "export", "paper", "noise_floor", "train_cifar"])
@pytest.mark.parametrize("to", ["a closed pipe", "/dev/full"])
def test_no_traceback_from_a_real_process(name, to):
  module, words = PROGRAMS[name]
  if to == "/dev/full":
    with open(to, "w") as full, started([module, *words], stdout=full) as process:
      said = process.stderr.read()
    assert (process.returncode, said) == (
      1, "error: standard output cannot be written: No space left on device\n"
    )  # fmt: skip
    return
  with started([module, *words], stdout=subprocess.PIPE) as process:
    process.stdout.close()
    said = process.stderr.read()
  assert (process.returncode, said) == (141, "")
