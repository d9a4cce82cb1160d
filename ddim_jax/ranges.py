"""Ranges of options, declared as types beside them: ``steps: Positive``. One check for all of them."""

import dataclasses
import functools
import inspect
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np

_SHOWN = 60


class Range(NamedTuple):
  """Numbers from ``low`` to ``high``; real ones are compared as the float32 that they become.

  Attributes:
    low: The lowest.
    high: The highest; infinity itself is never in a range.
    low_in: Whether ``low`` belongs to it.
    high_in: Whether ``high`` does.
  """

  low: float
  high: float
  low_in: bool = True
  high_in: bool = True

  def __contains__(self, value: object) -> bool:
    with np.errstate(over="ignore"):
      number: Any = value if isinstance(value, (int, np.integer)) else float(np.float32(value))  # type: ignore
    above = self.low < number or (self.low_in and number == self.low)
    return bool(above and (number < self.high or (self.high_in and number == self.high)))

  def __str__(self) -> str:
    show = lambda x: "inf" if x == math.inf else f"{x:,}" if isinstance(x, int) else f"{x:g}"
    return f"{'[('[not self.low_in]}{show(self.low)}, {show(self.high)}{'])'[not self.high_in]}"


_LARGEST = 2**31 - 1  # steps are counted in i32
Positive = Annotated[int, Range(1, _LARGEST)]
Count = Annotated[int, Range(0, _LARGEST)]
Several = Annotated[int, Range(2, _LARGEST)]
Side = Annotated[int, Range(1, 65_536)]
Seed = Annotated[int, Range(0, 2**63 - 1)]
PositiveReal = Annotated[float, Range(0, math.inf, False, False)]
Real = Annotated[float, Range(-math.inf, math.inf, False, False)]
Rate = Annotated[float, Range(0, 1, True, False)]
"""A share below 1: of dropout, or the decay of an EMA."""
Share = Annotated[float, Range(0, 1, False)]
Unit = Annotated[float, Range(0, 1)]


def check(hint: Any, name: str, value: Any) -> None:
  """Checks one value against the annotation of its argument; kinds other than numbers and choices pass.

  Raises:
    ValueError: If it is not what the annotation allows; names the argument, the value and the range.
  """
  origin, arguments = typing.get_origin(hint), typing.get_args(hint)
  if origin is Annotated:
    found = next((x for x in arguments[1:] if isinstance(x, Range)), None)
    if found is None:
      check(arguments[0], name, value)
    else:
      _check_number(arguments[0], found, name, value)
  elif origin in (typing.Union, types.UnionType):
    if value is not None and not callable(value):
      for one in arguments:
        if typing.get_origin(one) in (Annotated, tuple):
          check(one, name, value)
  elif origin is Literal:
    if value not in arguments:
      raise ValueError(f"{name} must be one of {', '.join(map(str, arguments))}, got {value!r}")
  elif origin is not None and inspect.isclass(origin) and issubclass(origin, Sequence):
    for one in value:
      check(arguments[0], name, one)


def _check_number(kind: type, allowed: Range, name: str, value: Any) -> None:
  real = isinstance(value, (int, float, np.number)) and not isinstance(value, (bool, complex))
  whole = isinstance(value, (int, np.integer))
  if not real or (kind is int and not whole) or value not in allowed:
    number = "an integer in" if kind is int else "in"
    raise ValueError(f"{name} must be {number} {allowed}, got {repr(value)[:_SHOWN]}")


@functools.cache
def _hints(owner: Any) -> Mapping[str, Any]:
  return typing.get_type_hints(owner, include_extras=True)


def check_all(owner: Any, values: Mapping[str, Any] | None = None) -> None:
  """Checks all fields of a dataclass, or arguments of a function as far as they are among ``values``.

  Raises:
    ValueError: On the first that is not what its annotation allows.
  """
  if values is None:
    values = {field.name: getattr(owner, field.name) for field in dataclasses.fields(owner)}
    owner = type(owner)
  for name, hint in _hints(owner).items():
    if name in values:
      check(hint, name, values[name])
