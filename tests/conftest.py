"""Four CPU devices, JAX at its strictest, and programs that compile in half the time, for every test."""

import os
from importlib.metadata import version

os.environ["XLA_FLAGS"] = (
  os.environ.get("XLA_FLAGS", "")
  + " --xla_force_host_platform_device_count=4"
  + " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
  + " --xla_cpu_parallel_codegen_split_count=1"  # programs are small: in one piece, a fifth less to compile
  # A third less to compile. Later versions do not know the flag, and stop at what they do not know.
  + (" --xla_cpu_use_fusion_emitters=false" if version("jaxlib").startswith(("0.9.", "0.10.")) else "")
)
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"  # where in Python an operation stands takes time to find
os.environ["OMP_NUM_THREADS"] = "1"  # torch's threads would wait, busily, for each other beside a worker

import re
import runpy
import subprocess
import sys

import jax
import pytest

from ddim_jax.commands import cli
from tests import forking
from tests.helpers import ROOT

cli.look_for_garbage_seldom()  # workers hold gigabytes of programs

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

QUICK_TO_COMPILE = " ".join(flag for flag in os.environ["XLA_FLAGS"].split() if "device_count" not in flag)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
  """Tests that start processes are slow: each takes seconds to import and to trace before it does anything.

  Files with the longest tests come first, so that in the end no worker is left alone with one.
  """
  for item in items:
    if "spawn" in item.fixturenames:
      item.add_marker(pytest.mark.slow)
  slow = {item.path for item in items if item.get_closest_marker("slow")}
  spawning = {item.path for item in items if "spawn" in item.fixturenames}
  items.sort(key=lambda item: (item.path not in spawning, item.path not in slow))


@pytest.fixture(scope="module")
def promotion():
  """JAX as users run it, where the tests are strict: optax, for one, raises a float to an integer power."""
  with jax.numpy_dtype_promotion("standard"):
    yield


@pytest.fixture(scope="session")
def exchanges():
  """The collectives of a program compiled for four devices: ``exchanges(f, whole, *shared)``, the latter
  split along their first axis, as the result is."""
  mesh = jax.make_mesh((4,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
  everywhere, by_image = (jax.NamedSharding(mesh, jax.P(*axes)) for axes in ((), ("batch",)))

  def compiled(f, whole, *shared):
    shardings = (everywhere, *[by_image] * len(shared))
    program = jax.jit(f, in_shardings=shardings, out_shardings=by_image).lower(whole, *shared)
    text = program.compile().as_text()
    assert "num_partitions=4" in text
    return re.findall("all-(?:gather|to-all|reduce)|collective-permute", text)

  return compiled


def _shared(tmp_path_factory, name):
  """A folder that the workers of a session share."""
  base = tmp_path_factory.getbasetemp()
  folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
  folder.mkdir(exist_ok=True)
  return folder


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
  """A folder for TFDS, shared by the tests of a session."""
  return _shared(tmp_path_factory, "tfds")


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory):
  """A folder for compiled programs, shared by the tests of a session and the processes they start."""
  cache = _shared(tmp_path_factory, "xla_cache")
  jax.config.update("jax_compilation_cache_dir", str(cache))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
  return cache


@pytest.fixture(scope="session")
def server(compilation_cache, data_dir):
  """What programs are forked from; started when the first is."""
  environment = {"TFDS_DATA_DIR": str(data_dir), "JAX_COMPILATION_CACHE_DIR": str(compilation_cache)}
  server = forking.Server(os.environ | environment, ROOT)
  yield server
  server.close()


@pytest.fixture(scope="session")
def spawn(server):
  """Starts a program in a process of its own: ``spawn("ddim_jax", "train", "digits", devices=4)``.

  With None for devices, it has as many as for a user, and is compiled as for a user.
  """

  def start(module, *args, devices: int | None = 1):
    flags = "" if devices is None else f"--xla_force_host_platform_device_count={devices} {QUICK_TO_COMPILE}"
    return server.start(module, [str(arg) for arg in args], {"XLA_FLAGS": flags})

  return start


@pytest.fixture(scope="session")
def finish():
  """Waits for a process and checks its exit status; returns what it wrote."""

  def wait(process, status=0, timeout=300):
    try:
      stdout, stderr = process.communicate(timeout=timeout)
    finally:
      process.kill()
    assert process.returncode == status, f"{process.args} exited {process.returncode}\n{stdout}\n{stderr}"
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

  return wait


@pytest.fixture(scope="session")
def run(spawn, finish):
  """Starts a program, waits for it and checks its exit status."""

  def run_to_end(module, *args, devices: int | None = 1, status=0, timeout=300):
    return finish(spawn(module, *args, devices=devices), status, timeout)

  return run_to_end


@pytest.fixture
def run_here(compilation_cache, data_dir, monkeypatch, capfd):
  """`run` in this process, with its four devices: for what a process of its own would not change."""

  def run_to_end(module, *args, status=0):
    monkeypatch.setattr(sys, "argv", [module, *map(str, args)])
    monkeypatch.delitem(sys.modules, module, raising=False)  # other tests import it by its name
    capfd.readouterr()
    with jax.numpy_dtype_promotion("standard"), pytest.raises(SystemExit) as ended:
      runpy.run_module(module, run_name="__main__")
    done = subprocess.CompletedProcess(sys.argv, ended.value.code or 0, *capfd.readouterr())
    assert done.returncode == status, f"{done.args} exited {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done

  monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)  # programs replace it
  monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(compilation_cache))
  monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))
  monkeypatch.setenv("MALLOC_ARENA_MAX", os.environ.get("MALLOC_ARENA_MAX", "8"))  # leave the heap alone
  return run_to_end
