"""Programs compiled on a CPU for accelerators: ``python -m experiments.bench compile --target NAME``.

Each program is compiled by a process of its own, ``python -m experiments.bench.cross``, whose environment is
that of the target: the compilers read it before JAX starts.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from experiments.bench import measure, targets
from experiments.bench.cross_page import write_page
from experiments.bench.programs import NETWORKS, Kind

Search = Literal["extrapolated", "compiled", "none"]


def cross(
  target: str,
  network: str,
  batch_size: int | None,
  channels: int | None,
  dtype: str,
  largest_batch: Search,
  out: Path,
) -> None:
  """Compiles a network's training step and sampler for a target; see `experiments.bench.compile.compile`."""
  found = targets.parse(target)
  if network not in NETWORKS:
    raise ValueError(f"--network must be one of {', '.join(NETWORKS)} with --target, got {network!r}")
  usual = NETWORKS[network]
  batch_size = usual.batch if batch_size is None else batch_size
  channels = usual.channels if channels is None else channels
  measure.positive(batch_size=batch_size, channels=channels)
  targets.require(found)
  settings = {
    "target": target, "network": network, "channels": channels, "dtype": dtype,
    "batch_a_device": batch_size, "largest_batch": largest_batch,
  }  # fmt: skip
  results: dict[str, Any] = settings | {"compilers": _versions(found), "programs": {}}
  kinds: tuple[Kind, ...] = ("train", "sample")
  for kind in kinds:
    results["programs"][kind] = made = _in_a_process(found, settings | {"kind": kind})
    print(f"{target}, {network}, {kind}: {json.dumps(made)}", flush=True)
  name = f"target_{target.replace(':', '-')}_{network}_c{channels}_{dtype}_b{batch_size}"
  measure.write(name, results, out)
  write_page(out)
  print(f"wrote {out / name}.json and {out / 'accelerators.md'}")


def _versions(target: targets.Target) -> str:
  compiler = "libtpu" if target.platform == "tpu" else "jax-cuda13-plugin"
  return ", ".join(f"{name} {metadata.version(name)}" for name in ("jax", compiler))


def _in_a_process(target: targets.Target, settings: dict[str, Any]) -> dict[str, Any]:
  """What `compiled` returns, in a process with the target's environment.

  Raises:
    ValueError: If the compiler does not know the target.
    RuntimeError: If the process failed otherwise.
  """
  command = [sys.executable, "-m", "experiments.bench.cross", json.dumps(settings)]
  with tempfile.TemporaryDirectory() as place, tempfile.TemporaryFile("w+") as errors:
    # The TPU compiler writes logs and a lock into the temporary folder.
    environment = os.environ | target.environment | {"TMPDIR": place}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)
    if done.returncode:
      errors.seek(0)
      said = errors.read().strip()
      if done.returncode == 2:
        raise ValueError(said.splitlines()[-1].removeprefix("error: "))
      raise RuntimeError(f"compiling for {target.name} failed:\n{said}")
  return json.loads(done.stdout.splitlines()[-1])


def compiled(
  target: str, network: str, channels: int, dtype: str, batch_a_device: int, largest_batch: Search, kind: Kind
) -> dict[str, Any]:
  """A program compiled for a target, as numbers a device; in a process with the target's environment.

  Args:
    target: See `targets.parse`.
    network: One of `programs.NETWORKS`.
    channels: Base width of the network.
    dtype: What it computes in.
    batch_a_device: Images for each device.
    largest_batch: How the largest power of two that fits is found. What does not fit itself cannot be
      extrapolated from, and smaller batches are compiled.
    kind: "train" or "sample".
  """
  import jax.numpy as jnp

  import ddim_jax
  from experiments.bench import programs

  found = targets.parse(target)
  there = targets.devices(found)
  cores = targets.cores(there)
  options, size = NETWORKS[network].options, NETWORKS[network].size
  model = ddim_jax.UNet(channels=channels, dtype=jnp.dtype(dtype), **options)
  result = _compile(programs.lowered(kind, model, size, batch_a_device, there))
  flop = programs.gflop(kind, model, size, batch_a_device) * 1e9
  result |= {"devices": len(there), "devices_a_chip": cores, "gflop": round(flop / 1e9, 3)}
  limit, largest = found.chip.memory // cores, batch_a_device // 2
  if "bytes" in result:
    arithmetic = 1e3 * flop / (found.chip.tflops[dtype] * 1e12 / cores)
    traffic = 1e3 * result["bytes"] / (found.chip.gigabytes_per_second * 1e9 / cores)
    step = max(arithmetic, traffic)
    milliseconds = {"arithmetic": arithmetic, "memory": traffic, "step": step}
    result["roofline_ms"] = {name: round(value, 4) for name, value in milliseconds.items()}
    result["fits"] = result["memory"]["total"] <= limit
    largest = extrapolate(result["memory"], batch_a_device, limit)
  if largest_batch == "extrapolated" and "bytes" in result:
    result["largest_batch"] = (largest, "extrapolated")
  elif largest_batch != "none":
    needed = lambda batch: _made(programs.lowered(kind, model, size, batch, there))[1].get("total")
    result["largest_batch"] = (search(needed, largest, limit), "compiled")
  return result


def _compile(program: Any) -> dict[str, Any]:
  """Compiles a lowered program and says what it is; nothing but the time if it does not fit."""
  from experiments.bench import hlo

  before, began = sum(os.times()[:4]), time.perf_counter()
  made, memory = _made(program)
  seconds = {
    "cpu_seconds_to_compile": round(sum(os.times()[:4]) - before, 1),
    "wall_seconds_to_compile": round(time.perf_counter() - began, 1),
  }
  if made is None:
    return {"fits": False} | seconds
  summary = hlo.summarise(made.as_text())
  return summary._asdict() | {"kernels": summary.kernels, "memory": memory} | seconds


def _made(program: Any) -> tuple[Any, dict[str, int]]:
  """A compiled program and bytes of its memory; None if the compiler says that there is too little."""
  import jax

  try:
    made = program.compile()
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" not in str(error):
      raise
    return None, {}
  stats = made.memory_analysis()
  temporary = stats.temp_size_in_bytes
  fixed = stats.argument_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes
  fixed += stats.generated_code_size_in_bytes
  return made, {"fixed": fixed, "temporary": temporary, "total": fixed + temporary}


def extrapolate(memory: dict[str, int], batch: int, limit: int) -> int:
  """The largest power of two that fits if temporary memory is proportional to the batch; 0 if none does.

  Args:
    memory: Bytes of a program, ``"fixed"`` and ``"temporary"``.
    batch: Its images.
    limit: Bytes.
  """
  most = (limit - memory["fixed"]) * batch // max(1, memory["temporary"])
  return 1 << (most.bit_length() - 1) if most >= 1 else 0


def search(memory: Callable[[int], int | None], start: int, limit: int) -> int:
  """The largest power of two whose memory is within a limit, by compiling.

  Args:
    memory: ``batch -> bytes``, or None where the compiler refuses.
    start: A guess.
    limit: Bytes.

  Returns:
    0 if not even one image fits.
  """
  fits = lambda batch: (needed := memory(batch)) is not None and needed <= limit
  batch = 1 << (max(1, start).bit_length() - 1)
  if fits(batch):
    while fits(2 * batch):
      batch *= 2
    return batch
  while batch > 1:
    batch //= 2
    if fits(batch):
      return batch
  return 0


def main() -> int:
  """One program; the settings are the argument."""
  import jax

  jax.config.update("jax_enable_compilation_cache", False)
  try:
    print(json.dumps(compiled(**json.loads(sys.argv[1]))))
  except ValueError as error:
    sys.stderr.write(f"error: {error}\n")
    return 2
  return 0


if __name__ == "__main__":
  sys.exit(main())
