"""What a run will take, said before its program is compiled where that can be counted."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ddim_jax.console import say

_EFFICIENCY = 0.3
"""Share of the rate of a large product that a training step is taken to reach."""
_LATEST = 3e11
"""Seconds to the last date that is shown, some 10,000 years."""
_WEEKS = 14 * 24 * 3600.0
_SIZE = 1024


def operations(update: Any, parts: int = 1) -> float:
  """Floating point operations of an update on all devices; 0 where they are not counted.

  On a CPU they are counted of the lowered program, on TPUs and GPUs only of the compiled one, there without
  what the compiler leaves to a library.

  Args:
    update: The update of a device, lowered or compiled.
    parts: Into how many it is divided, of which XLA counts one.
  """
  cost = update.cost_analysis()
  cost = cost[0] if isinstance(cost, list) else cost
  return float((cost or {}).get("flops", 0.0)) * parts * jax.device_count()


def rate() -> float:
  """Operations per second of a large float32 product on this machine, of all its devices together."""
  product, matrix = jax.jit(jnp.matmul), np.ones((_SIZE, _SIZE), np.float32)
  product(matrix, matrix).block_until_ready()
  began = time.monotonic()
  product(matrix, matrix).block_until_ready()
  reached = 2 * _SIZE**3 / (time.monotonic() - began)
  return reached if jax.default_backend() == "cpu" else reached * jax.device_count()


def outlook(flops: float, steps: int) -> list[str]:
  """What so many updates will take, in lines; the last is a warning where that is weeks.

  Args:
    flops: Of an update, see `operations`; nothing is said of 0.
    steps: Updates that are left.
  """
  if not flops:
    return []
  each = flops / (rate() * _EFFICIENCY)
  done = time.strftime("%d %B %Y, %H:%M", time.localtime(time.time() + min(each * steps, _LATEST)))
  lines = [f"outlook     {flops / 1e9:,.3g} GFLOP and about {each:.2g} s per step; {steps:,} steps by {done}"]
  if each * steps > _WEEKS:
    lines.append(
      f"warning: that is about {each * steps / 7 / 24 / 3600:,.0f} weeks on this machine: take fewer steps,"
      " smaller images or batches, a narrower network, or a machine with a TPU or GPU"
    )
  return lines


def say_outlook(update: Any, parts: int, steps: int) -> bool:
  """Says it of an update, lowered or compiled; returns whether its operations are counted. See the above."""
  lines = outlook(operations(update, parts), steps)
  for line in lines:
    say(line)
  return bool(lines)
