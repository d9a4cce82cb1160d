"""The cores of a CPU, and a JAX device for each."""

import os

import jax

_MOST_DEVICES = 8  # each of them holds the state of a training run


def cores() -> int:
  """How many cores this process may use."""
  return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_every_core(batch_size: int = 0) -> None:
  """Makes every core of a CPU a JAX device, up to 8 of them, where the user has not said how many.

  XLA spreads each operation of a device over all cores, which small convolutions gain little from: two
  devices with half of a batch each are done earlier than one with all of it (``experiments.bench sample``).

  Args:
    batch_size: What the devices must be able to share evenly; 0 if they need not.
  """
  if "device_count" in os.environ.get("XLA_FLAGS", "") or "JAX_NUM_CPU_DEVICES" in os.environ:
    return
  shared = (n for n in range(min(cores(), _MOST_DEVICES), 1, -1) if batch_size % n == 0)
  jax.config.update("jax_num_cpu_devices", next(shared, 1))


def lies_alone() -> int | None:
  """Elements beyond which an array had better not be packed with others: see `ddim_jax.packing.pack`.

  On a CPU a copy of a large array costs more than one more operation; elsewhere all are packed.
  """
  return 2**16 if jax.default_backend() == "cpu" else None
