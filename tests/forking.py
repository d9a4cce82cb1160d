"""Programs in real processes that need not import anything: forked from one that has.

Importing is half of what a short program costs, and the tests start a hundred. Each worker of pytest has a
server, ``python -m tests.forking``, that imports what the programs use and makes no JAX backend. For each
program it forks a process with standard output, error and environment of its own, which then does what
``python -m MODULE ARGUMENTS`` would, to the end of its interpreter. Tests of importing start Python itself.
"""

import functools
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Mapping
from typing import Any, TextIO

_IMPORTS = (
  "orbax.checkpoint", "optax", "tensorflow_datasets", "tyro", "tqdm", "sklearn.datasets", "matplotlib.pyplot",
  "tensorboard.summary.writer.event_file_writer", "ddim_jax.commands.train_model", "ddim_jax.runs",
)  # fmt: skip
_LONGEST = 2**17


def _all_of(file: TextIO) -> str:
  with file:
    file.seek(0)
    return file.read()


class Program:
  """A program that was started: what the tests use of `subprocess.Popen`."""

  def __init__(self, args: list[str], pid: int, ended: int, outputs: tuple[TextIO, TextIO]):
    self.args, self.pid, self.returncode = args, pid, None
    self._ended, self._outputs = ended, outputs

  def _status(self, timeout: float | None) -> int | None:
    if self.returncode is None and select.select([self._ended], [], [], timeout)[0]:
      self.returncode = os.waitstatus_to_exitcode(int(os.read(self._ended, 16)))
      os.close(self._ended)
    return self.returncode

  def poll(self) -> int | None:
    """The exit status, or None while it runs."""
    return self._status(0)

  def communicate(self, timeout: float | None = None) -> tuple[str, str]:
    """Waits for the end, and returns what was written to standard output and error."""
    if self._status(timeout) is None:
      raise subprocess.TimeoutExpired(self.args, timeout or 0)
    return self._written

  @functools.cached_property
  def _written(self) -> tuple[str, str]:
    stdout, stderr = (_all_of(file) for file in self._outputs)
    return stdout, stderr

  def errors(self) -> str:
    """What is in standard error by now; after the end, too, by processes that it had started."""
    number = self._outputs[1].fileno()
    return os.pread(number, os.fstat(number).st_size, 0).decode(errors="replace")

  def send_signal(self, number: int) -> None:
    """Sends a signal if it still runs."""
    if self.poll() is None:
      os.kill(self.pid, number)

  def kill(self) -> None:
    """Sends SIGKILL if it still runs."""
    self.send_signal(signal.SIGKILL)


class Server:
  """The process that programs are forked from.

  JAX takes its settings from ``environment``, but for XLA's flags, which each program reads for its backend.
  """

  def __init__(self, environment: Mapping[str, str], folder: Any):
    self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
      command = [sys.executable, "-m", "tests.forking", str(theirs.fileno())]
      self._server = subprocess.Popen(command, cwd=folder, env=environment, pass_fds=[theirs.fileno()])

  def start(self, module: str, args: list[str], environment: Mapping[str, str]) -> Program:
    """Starts ``python -m MODULE ARGS``, with some variables of its environment changed."""
    outputs = tempfile.TemporaryFile("w+"), tempfile.TemporaryFile("w+")  # noqa: SIM115 (read after the end)
    ended, theirs = os.pipe()
    message = json.dumps([module, args, dict(environment)]).encode()
    socket.send_fds(self._socket, [message], [outputs[0].fileno(), outputs[1].fileno(), theirs])
    os.close(theirs)
    pid = int(self._socket.recv(16))
    return Program([sys.executable, "-m", module, *args], pid, ended, outputs)

  def close(self) -> None:
    """Ends the server; its programs are not touched."""
    self._socket.close()
    self._server.wait()


def _serve(connection: socket.socket) -> tuple[str, list[str]] | None:
  """Forks until the connection ends. Returns in each program, with what it is to run; None in the server."""
  while True:
    message, descriptors, *_ = socket.recv_fds(connection, _LONGEST, 3)
    if not message:
      return None
    if not os.fork():
      break
    for descriptor in descriptors:
      os.close(descriptor)
  # Here is the parent of one program, which tells how it ended.
  signal.signal(signal.SIGCHLD, signal.SIG_DFL)
  stdout, stderr, ended = descriptors
  if program := os.fork():
    connection.send(str(program).encode())
    connection.close()
    os.close(stdout)
    os.close(stderr)
    os.write(ended, str(os.waitpid(program, 0)[1]).encode())
    os._exit(0)
  connection.close()
  os.close(ended)
  for descriptor, number in ((stdout, 1), (stderr, 2)):
    os.dup2(descriptor, number)
    os.close(descriptor)
  module, args, environment = json.loads(message)
  os.environ |= environment
  return module, args


def main() -> None:
  """The server, until the connection with the number of the first argument ends."""
  for name in _IMPORTS:
    importlib.import_module(name)
  signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # who has told how a program ended is not waited for
  with socket.socket(fileno=int(sys.argv[1])) as connection, warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # NumPy's threads survive a fork
    program = _serve(connection)
  if program is not None:
    module, args = program
    sys.argv = [module, *args]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
  main()
