"""What a run says before it begins."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from ddim_jax.console import say
from ddim_jax.data import Source
from ddim_jax.training import TrainState


def header(
  workdir: Path, source: Source, state: TrainState, batch_size: int, steps: int, changes: Sequence[str]
) -> list[str]:
  """Devices, network, data, batch and run, a line each; and what a run goes on with otherwise than it was."""
  parameters = sum(x.size for x in jax.tree.leaves(state.params))
  device = jax.devices()[0]
  classes = f", {len(source.classes)} classes" if source.classes else ""
  processes = f"{jax.process_count()} process" + "es" * (jax.process_count() > 1)
  return [
    f"devices     {jax.device_count()} x {device.device_kind} ({device.platform}), {processes}",
    f"network     {parameters:,} parameters",
    f"data        {source.name}: {source.size:,} images {'x'.join(map(str, source.shape))}{classes}",
    f"batch       {batch_size} = {jax.device_count()} x {batch_size // jax.device_count()}",
    f"run         {workdir.absolute()}, step {int(state.step):,} of {steps:,}",
    *(f"changed     {change}" for change in changes),
  ]


def say_operations(program: Any) -> None:
  """Says how many floating point operations an update takes on all devices, where XLA counts them."""
  cost = program.cost_analysis()
  cost = cost[0] if isinstance(cost, list) else cost
  flops = float((cost or {}).get("flops", 0.0)) * jax.device_count()
  if flops > 0:
    say(f"a step      about {flops / 1e9:,.1f} GFLOP")
