"""Options that several commands have, and how a command line becomes a call."""

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from ddim_jax import ranges
from ddim_jax.commands import cli
from ddim_jax.models import Model, load
from ddim_jax.models.config import Data
from ddim_jax.ranges import Side

DEFAULT, CONDITIONAL, FEW = "fashion_mnist", "fashion_mnist_classes", "fashion_mnist_4_steps"
"""The models that come along: the one that is used when none is named, the one with classes, and the one
that needs only four steps."""
_HELP = (
  f"The model: {DEFAULT}, {CONDITIONAL} or {FEW}, which come along; the folder of a run; a .safetensors file;"
  " a folder of diffusers, or OWNER/NAME of its hub; a .ckpt, .pth or .pt file of the original DDIM code,"
  " improved-diffusion or guided-diffusion."
)
Where = Annotated[str, tyro.conf.Positional, tyro.conf.arg(help=_HELP, metavar="MODEL")]
"""The argument that says which model, the same for every command."""
Out = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
"""The argument that says what to write."""
MaybeOut = Path | None
"""The option that says what to write."""
Label = Annotated[str | None, tyro.conf.arg(aliases=["--class"])]
"""The option that asks for a class, by number or name."""
_FLAGS_HELP = (
  "Of a .pt file of guided-diffusion that is no published one: options that it was trained with, such as"
  ' "num_head_channels 64 image_size 256".'
)
Flags = Annotated[str | None, tyro.conf.arg(help=_FLAGS_HELP)]
"""The option that says what a ``.pt`` file does not tell, in the words of the scripts it was trained with."""
_SIZE_HELP = (
  "Height of the images in pixels, where another project's files do not say, or other than they say."
)
Size = Annotated[Side | None, tyro.conf.arg(aliases=["--size"], help=_SIZE_HELP)]
"""The option that says how high images are, where another project's files do not."""
_A = TypeVar("_A")


def model(
  where: str,
  step: int | None = None,
  ema: float | None = None,
  size: int | None = None,
  data: str | None = None,
  flags: Flags = None,
) -> Model:
  """The model; with ``data``, another data set to compare with than it was trained on."""
  found = load(where, step=step, ema=ema, size=size, flags=flags)
  if data is None:
    return found
  return found.replace(config=dataclasses.replace(found.config, data=Data(data)))


def check_pictures(found: Model) -> None:
  """Raises ValueError unless samples of the model can be looked at."""
  if not found.visible:
    raise ValueError(f"model must be of pictures [H, W, C], got one of values {list(found.shape)}")


registry = tyro.constructors.ConstructorRegistry()
"""How options are typed: ``with registry:`` around whatever parses them."""


@registry.primitive_rule
def _optional(info: tyro.constructors.PrimitiveTypeInfo) -> Any:
  """An option that may be left out is typed as what it is: ``--step INT``, not ``--step {None}|INT``."""
  kinds = [kind for kind in typing.get_args(info.type) if kind is not type(None)]
  if len(kinds) != 1 or type(None) not in typing.get_args(info.type):
    return None
  of = tyro.constructors.PrimitiveTypeInfo.make(kinds[0], info.markers)
  spec: Any = tyro.constructors.ConstructorRegistry.get_primitive_spec(of)
  return dataclasses.replace(
    spec,
    instance_from_str=lambda words: None if words in (["none"], ["None"]) else spec.instance_from_str(words),
    is_instance=lambda value: value is None or spec.is_instance(value),
    str_from_instance=lambda value: ["none"] if value is None else spec.str_from_instance(value),
    choices=None if spec.choices is None else (*spec.choices, "none"),
  )


def parse(kind: Callable[..., _A], argv: Sequence[str], prog: str) -> _A:
  """What a command line asks for: a dataclass of options, or the result of a function of them."""
  with registry:
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
