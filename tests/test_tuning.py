"""What is asked of a GPU's compiler."""

import importlib.util
import os

import jax
import jax.numpy as jnp
import pytest

from ddim_jax import tuning


@pytest.fixture
def with_plugin(monkeypatch):
  """As where JAX's plugin for NVIDIA is installed, which needs no GPU to be; nothing of it is used."""
  found = importlib.util.find_spec("json")
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: found if "cuda13" in name else None)


def test_xla_knows_the_option():
  """A name that it does not know is an error, on every platform."""
  product = jax.jit(jnp.matmul, compiler_options={tuning._OPTION: False})
  assert product(jnp.ones((2, 3)), jnp.ones((3, 2)))[0, 0] == 3
  with pytest.raises(jax.errors.JaxRuntimeError, match="No such compile option"):
    jax.jit(jnp.matmul, compiler_options={tuning._OPTION + "s": False})(jnp.ones((2, 3)), jnp.ones((3, 2)))


def test_a_cpu_is_asked_nothing(monkeypatch):
  monkeypatch.setenv("XLA_FLAGS", "")
  assert tuning.options() is None
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  assert tuning.options() == {"xla_gpu_enable_triton_gemm": False}


@pytest.mark.usefixtures("with_plugin")
@pytest.mark.parametrize("said", ["", "--xla_gpu_autotune_level=2"])
def test_programs_leave_products_to_libraries(monkeypatch, said):
  monkeypatch.setenv("XLA_FLAGS", said)
  tuning.use_libraries()
  flags = os.environ["XLA_FLAGS"].split()
  assert flags == [*said.split(), "--xla_gpu_enable_triton_gemm=false"]


@pytest.mark.usefixtures("with_plugin")
def test_what_the_user_says_stays(monkeypatch):
  monkeypatch.setenv("XLA_FLAGS", "--xla_gpu_enable_triton_gemm=true")
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  tuning.use_libraries()
  assert os.environ["XLA_FLAGS"] == "--xla_gpu_enable_triton_gemm=true"
  assert tuning.options() is None


def test_without_the_plugin_nothing_is_set(monkeypatch):
  monkeypatch.setenv("XLA_FLAGS", "")
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  tuning.use_libraries()
  assert os.environ["XLA_FLAGS"] == ""
