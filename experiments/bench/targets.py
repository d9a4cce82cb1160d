"""Accelerators to compile for that are not there: their names, topologies, and makers' figures.

Peaks are those that the makers publish for a chip: NVIDIA's data sheet of the H100 SXM (without sparsity)
and Google Cloud's pages of TPU v4, v5e, v5p and v6e. The memory that a program may have is what XLA's TPU
compiler grants it, which it says when a program is too large; on a GPU, the three quarters of the memory
that JAX takes when it starts.
"""

import importlib.util
import re
import sys
from typing import Any, NamedTuple

_GB = 2**30


class Chip(NamedTuple):
  """A maker's figures for a chip.

  Attributes:
    tflops: Peak rates by dtype, 1e12 operations a second; float32 runs as TF32 on a GPU, as one bfloat16
      product on a TPU, which is JAX's default precision.
    gigabytes_per_second: Of its main memory.
    memory: Bytes of it that a program may have.
  """

  tflops: dict[str, float]
  gigabytes_per_second: float
  memory: int


def _tpu(tflops: float, gigabytes_per_second: float, gigabytes: float) -> Chip:
  rates = {"bfloat16": tflops, "float32": tflops}
  return Chip(rates, gigabytes_per_second, int(gigabytes * _GB))


_H100_BYTES = 84_978_434_048
_CHIPS = {
  "h100": Chip({"bfloat16": 989.4, "float32": 494.7}, 3352, _H100_BYTES * 3 // 4),
  "v4": _tpu(275, 1228, 30.5),
  "v5e": _tpu(197, 819, 15.75),
  "v5p": _tpu(459, 2765, 95.73),
  "v6e": _tpu(918, 1640, 31.24),
}
_H100 = {
  "threads_per_block_limit": 1024,
  "threads_per_warp": 32,
  "shared_memory_per_block": 48 * 1024,
  "shared_memory_per_core": 228 * 1024,
  "shared_memory_per_block_optin": 227 * 1024,
  "threads_per_core_limit": 2048,
  "core_count": 132,
  "fpus_per_core": 128,
  "block_dim_limit_x": 2**31 - 1,
  "block_dim_limit_y": 2**16 - 1,
  "block_dim_limit_z": 2**16 - 1,
  "memory_bandwidth": 3_352_320_000_000,
  "l2_cache_size": 50 * 2**20,
  "clock_rate_ghz": 1.98,
  "device_memory_size": _H100_BYTES,
  "registers_per_core_limit": 2**16,
  "registers_per_block_limit": 2**16,
  "cuda_compute_capability": {"major": 9, "minor": 0},
}
"""The H100 SXM in the words of XLA's ``GpuDeviceInfoProto``: NVIDIA's published limits of compute
capability 9.0, and the size and rates of this product."""
_TPU_ENVIRONMENT = {
  # Nobody is asked for a machine that has none, several processes may compile, and the name is of any TPU.
  "TPU_SKIP_MDS_QUERY": "1",
  "TPU_ACCELERATOR_TYPE": "v5litepod-4",
  "TPU_WORKER_HOSTNAMES": "localhost",
  "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


class Target(NamedTuple):
  """What is compiled for.

  Attributes:
    name: As on the command line.
    chip: Figures of each chip.
    platform: ``"tpu"`` or ``"cuda"``.
    topology: How the chips lie, in the words of the platform.
  """

  name: str
  chip: Chip
  platform: str
  topology: str

  @property
  def environment(self) -> dict[str, str]:
    """What must be set before JAX starts: it runs on the CPU and compiles for the other."""
    return {"JAX_PLATFORMS": "cpu"} | (_TPU_ENVIRONMENT if self.platform == "tpu" else {})


def parse(name: str) -> Target:
  """The target of a name: ``h100``, ``h100:8`` (GPUs of one host), ``v5e:2x2``, ``v4:2x2x1``, ...

  Raises:
    ValueError: If there is none of the name.
  """
  kind, _, shape = name.partition(":")
  if kind in _CHIPS and kind.startswith("v") and re.fullmatch(r"[1-9]\d*(x[1-9]\d*){1,2}", shape):
    return Target(name, _CHIPS[kind], "tpu", name)
  if kind in _CHIPS and not kind.startswith("v") and re.fullmatch(r"([1-9]\d*)?", shape):
    return Target(name, _CHIPS[kind], "cuda", f"1x1x{shape or 1}")
  raise ValueError(
    f"--target must be h100, h100:GPUS, or a TPU slice such as v5e:2x2, v4:2x2x1, v5p:2x2x1 or v6e:2x4,"
    f" got {name!r}"
  )


def require(target: Target) -> None:
  """Raises ValueError, saying what to install, if the compiler for a target is not here."""
  if target.platform == "tpu" and importlib.util.find_spec("libtpu") is None:
    raise ValueError(f"--target {target.name} needs the TPU compiler: pip install 'jax[tpu]'")
  if target.platform == "cuda" and (
    sys.version_info < (3, 12) or importlib.util.find_spec("jax_cuda13_plugin") is None
  ):
    raise ValueError(
      f"--target {target.name} needs NVIDIA's compiler, and Python 3.12 or newer (this is"
      f" {sys.version.split()[0]}): pip install 'jax[cuda13]>=0.12'"
    )


def devices(target: Target) -> list[Any]:
  """The devices of a target, of which none is here; in a process with `Target.environment`.

  Raises:
    ValueError: If the compiler knows no such slice.
  """
  import jax
  from jax.experimental import topologies

  try:
    if target.platform == "cuda":
      found = topologies.get_topology_desc(
        "h100", platform="cuda", target_config=_description(), topology=target.topology
      )
    else:
      found = topologies.get_topology_desc(platform="tpu", topology_name=target.topology)
  except jax.errors.JaxRuntimeError as error:
    reason = str(error).splitlines()[0]
    raise ValueError(f"--target {target.name} is not known to the compiler: {reason}") from None
  return list(found.devices)


def cores(found: list[Any]) -> int:
  """Devices a chip: 2 of a TPU v4, whose cores are a device each, else 1."""
  chips = {tuple(getattr(device, "coords", (device.id,))) for device in found}
  return len(found) // len(chips)


def _description() -> str:
  """The H100 as the text of a ``GpuTargetConfigProto``, which XLA takes instead of a device."""

  def lines(values: dict[str, Any]) -> list[str]:
    nested = lambda name, inner: [f"{name} {{", *lines(inner), "}"]
    return [
      line
      for name, value in values.items()
      for line in (nested(name, value) if isinstance(value, dict) else [f"{name}: {value}"])
    ]

  target = {
    "gpu_device_info": _H100,
    "platform_name": '"CUDA"',
    "dnn_version_info": {"major": 9, "minor": 8, "patch": 0},
    "device_description_str": '"NVIDIA H100 80GB HBM3"',
  }
  return "\n".join(lines(target))
