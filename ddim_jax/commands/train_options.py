"""The command line of ``ddim train`` as `presets.Args`."""

import dataclasses
import typing
from collections.abc import Sequence
from typing import Annotated, Any

import tyro

from ddim_jax import ranges
from ddim_jax.commands import options
from ddim_jax.commands.presets import PRESETS, Args, Run
from ddim_jax.models.config import Data, Diffusion, Network, Optimisation
from ddim_jax.ranges import Range

OPTIONS = options.names(Run, Data, Network, Diffusion, Optimisation) | {"width", "from"}
"""Names of the options, by which messages are put in the words of the command."""


def parse(argv: Sequence[str], prog: str = "ddim train") -> Args:
  """The preset named first, changed by the options after it.

  What to train on may follow the name of the preset "folder", or stand in its place.
  """
  argv = list(argv)
  if argv and argv[0] not in PRESETS and not argv[0].startswith("-"):
    argv.insert(0, "folder")
  if argv[:1] == ["folder"] and len(argv) > 1 and not argv[1].startswith("-"):
    argv[1:2] = ["--data", argv[1]]
  table = {name: (preset.__doc__ or "", _as_line(preset())) for name, preset in PRESETS.items()}
  config = (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes)
  with options.registry:
    line = tyro.extras.overridable_config_cli(table, args=argv, prog=prog, config=config)
  ranges.check(
    typing.get_type_hints(_Network, include_extras=True)["channels"], "width", line.network.channels
  )
  return Args(**_shallow(line) | {"network": Network(**_shallow(line.network))})


@dataclasses.dataclass(frozen=True)
class _Network(Network):
  """The U-Net, whose channels are called its width: those of pictures are meant by --channels.

  Attributes:
    channels: Base width: channels at the first resolution.
  """

  channels: Annotated[int, Range(4, 65_536), tyro.conf.arg(name="width")] = 128


@dataclasses.dataclass(frozen=True)
class _Line(Args):
  """Trains a diffusion model, or goes on with the run in --workdir."""

  network: _Network = dataclasses.field(default_factory=_Network)


def _shallow(values: Any) -> dict[str, Any]:
  return {field.name: getattr(values, field.name) for field in dataclasses.fields(values)}


def _as_line(args: Args) -> _Line:
  return _Line(**_shallow(args) | {"network": _Network(**_shallow(args.network))})
