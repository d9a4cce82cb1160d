"""Classes by number or by name."""

import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

Label = int | str | Sequence[int | str] | np.ndarray | jax.Array
"""A class by number or name, or one for each image."""
_MOST_COLUMNS = 40


def numbers(label: Label | None, classes: Sequence[str], name: str = "label") -> Any:
  """Classes as numbers: ``i32[]``, or ``i32[B]`` for one class for each image; None and traced ones stay.

  Args:
    label: As a person says it.
    classes: Names of the classes; empty if there are none.
    name: What the argument is called.

  Raises:
    ValueError: If there is no such class, or none at all.
  """
  if label is None or isinstance(label, jax.core.Tracer):
    return label
  if not classes:
    raise ValueError(
      f"{name} needs a conditional model; this one is unconditional. One that comes along:"
      " fashion_mnist_classes"
    )
  if isinstance(label, str) or np.ndim(label) == 0:
    return np.int32(_number(label, classes, name))
  if np.ndim(label) > 1:
    raise ValueError(f"{name} must be one class or a list of them, got shape {np.shape(label)}")
  return np.asarray([_number(one, classes, name) for one in np.asarray(label).tolist()], np.int32)


def as_columns(classes: Sequence[str], num: int) -> Sequence[str]:
  """Labels of the columns of a grid of ``num`` images, image i of class i modulo their number.

  None where not even a row is filled, or where there are too many classes for a picture.
  """
  return classes if len(classes) < num and len(classes) <= _MOST_COLUMNS else ()


def _number(label: Any, classes: Sequence[str], name: str) -> int:
  text = str(label)
  if isinstance(label, str) and text in classes:
    return list(classes).index(text)
  if re.fullmatch(r"[0-9]{1,9}", text) and int(text) < len(classes):
    return int(text)
  raise ValueError(f"{name} must be in [0, {len(classes) - 1}] or one of {', '.join(classes)}, got {label!r}")
