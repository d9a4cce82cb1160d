"""Trains a model: ``python -m experiments.train PRESET [options]``; ``--help`` lists them all."""

import sys
from collections.abc import Sequence

import tyro

from experiments import cli, loop
from experiments.presets import PRESETS, Args


def parse(argv: Sequence[str]) -> Args:
  """The preset named first, changed by the options after it."""
  presets = {name: (preset.__doc__ or "", preset()) for name, preset in PRESETS.items()}
  config = (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes)
  return tyro.extras.overridable_config_cli(presets, args=argv, prog="experiments.train", config=config)


def main(argv: Sequence[str]) -> None:
  """Parses, trains and exits."""
  args = parse(argv)
  share = args.optimisation.batch_size // max(1, args.run.num_processes or 1)
  cli.run(lambda: loop.train(args), batch_size=share)


if __name__ == "__main__":
  main(sys.argv[1:])
