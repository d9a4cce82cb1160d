"""Options that several commands have, and how a command line becomes a call."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from ddim_jax import ranges
from ddim_jax.commands import cli
from ddim_jax.models import Model, load, packaged
from ddim_jax.models.config import Data

DEFAULT, CONDITIONAL = packaged()
"""The models that come along: the one that is used when none is named, and the one with classes."""
_HELP = (
  f"The model: {DEFAULT} or {CONDITIONAL}, which come along; the folder of a run; a .safetensors file; a"
  " folder of diffusers, or OWNER/NAME of its hub; a .ckpt, .pth or .pt file of the original DDIM code."
)
Where = Annotated[str, tyro.conf.Positional, tyro.conf.arg(help=_HELP, metavar="MODEL")]
"""The argument that says which model, the same for every command."""
Out = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
"""The argument that says what to write."""
MaybeOut = Path | None
"""The option that says what to write."""
Label = Annotated[str | None, tyro.conf.arg(aliases=["--class"])]
"""The option that asks for a class, by number or name."""
_A = TypeVar("_A")


def model(
  where: str,
  step: int | None = None,
  ema: float | None = None,
  size: int | None = None,
  data: str | None = None,
) -> Model:
  """The model; with ``data``, another data set to compare with than it was trained on."""
  found = load(where, step=step, ema=ema, size=size)
  if data is None:
    return found
  return found.replace(config=dataclasses.replace(found.config, data=Data(data)))


def parse(kind: Callable[..., _A], argv: Sequence[str], prog: str) -> _A:
  """What a command line asks for: a dataclass of options, or the result of a function of them."""
  return tyro.cli(kind, args=list(argv), prog=prog, config=(tyro.conf.OmitArgPrefixes,))


def run(function: Callable[..., int | None], argv: Sequence[str], prog: str, *sections: Any) -> None:
  """Calls a function with the arguments of a command line, and exits with its status.

  Dataclasses among its arguments, whose fields are options too, are named as ``sections``.
  """

  @functools.wraps(function)
  def checked(*arguments: Any, **more: Any) -> int | None:
    ranges.check_all(function, inspect.signature(function).bind(*arguments, **more).arguments)
    return function(*arguments, **more)

  cli.run(lambda: parse(checked, argv, prog), options=names(function, *sections))


def names(*kinds: Any) -> frozenset[str]:
  """Names of the options of functions or dataclasses, by which messages are put in the words of a command."""
  found: set[str] = set()
  for kind in kinds:
    if dataclasses.is_dataclass(kind):
      found |= {field.name for field in dataclasses.fields(kind)}
    else:
      found |= set(inspect.signature(kind).parameters)
  return frozenset(found)
