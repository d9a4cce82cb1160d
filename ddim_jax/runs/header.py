"""What a run says before it begins."""

from collections.abc import Sequence
from pathlib import Path

import jax

from ddim_jax import data
from ddim_jax.models import tree
from ddim_jax.schedules import Schedule
from ddim_jax.training import TrainState

_LOOKED_AT = 256
_UNSEEN = 0.02
"""Share of the variance that may be left of the data at the last level; 0.005 in released models."""


def header(
  workdir: Path,
  source: data.Source,
  schedule: Schedule,
  state: TrainState,
  batch_size: int,
  steps: int,
  changes: Sequence[str],
) -> list[str]:
  """Devices, network, data, batch and run, a line each; and what a run goes on with otherwise than it was."""
  device = jax.devices()[0]
  processes = f"{jax.process_count()} process" + "es" * (jax.process_count() > 1)
  return [
    f"devices     {jax.device_count()} x {device.device_kind} ({device.platform}), {processes}",
    f"network     {tree.size(state.params):,} parameters",
    str(data.inspect(source, most=_LOOKED_AT, sheet=False)),
    f"batch       {batch_size} = {jax.device_count()} x {batch_size // jax.device_count()}",
    f"run         {workdir.absolute()}, step {int(state.step):,} of {steps:,}",
    *(f"changed     {change}" for change in changes),
    *filter(None, [rest_of_the_data(schedule)]),
  ]


def rest_of_the_data(schedule: Schedule) -> str | None:
  """A warning where samples, which start from noise alone, start from what the network has not seen."""
  share = float(schedule.alpha_bar[-1])
  if share <= _UNSEEN:
    return None
  return (
    f"warning: at level T = {schedule.T} the data still make up {share:.0%} of the variance, but samples"
    " start from noise alone: take more levels, another schedule, or zero_terminal_snr (then predict v or x0)"
  )
