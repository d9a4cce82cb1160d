"""One check of every number that a configuration, a command or a run takes; nothing is trained."""

import dataclasses
import inspect
import math
import typing

import jax
import numpy as np
import pytest

from ddim_jax import models, ranges
from ddim_jax.commands import compare, convert, editing, export, presets, sample_images, train_model
from ddim_jax.models import config
from ddim_jax.runs import fit

OWNERS = [
  *(config.Data, config.Network, config.Diffusion, config.Optimisation, presets.Run),
  *(sample_images.Args, editing.Edit),
  *(fit, models.Model.sample, models.Model.invert, compare.compare, convert.convert, export.export),
]


def numbers(hint, path=()):
  """``(range, whole, wrap)`` for each number in an annotation: wrap makes a value of the whole one."""
  origin, arguments = typing.get_origin(hint), typing.get_args(hint)
  if hint in (int, float):
    yield None, hint is int, path
  elif origin is typing.Annotated:
    found = [x for x in arguments[1:] if isinstance(x, ranges.Range)]
    if found:
      yield found[0], arguments[0] is int, path
    else:
      yield from numbers(arguments[0], path)
  elif origin not in (typing.Literal, dict, typing.get_origin(typing.Callable[..., int])):
    many = inspect.isclass(origin) and issubclass(origin, (tuple, typing.get_origin(typing.Sequence[int])))
    for one in arguments:
      if one is not ...:
        yield from numbers(one, (*path, tuple) if many else path)


def fields():
  for owner in OWNERS:
    for name, hint in typing.get_type_hints(owner, include_extras=True).items():
      for allowed, whole, path in numbers(hint):
        yield pytest.param(owner, name, allowed, whole, path, id=f"{owner.__name__}.{name}")


def outside(allowed, whole):
  """Values that are not in the range: beyond its ends, not finite, of another kind, and in float32."""
  yield from (math.nan, math.inf, -math.inf, np.float32("nan"), "1", True)
  yield from (10**400, -(10**400)) if whole else (1e39, -1e39)
  if not whole and allowed.high == 1:
    yield from (1.5, -0.5, -1e-30) if allowed.low_in else (1.5, -0.5, 0.0)
    yield from () if allowed.high_in else (1.0, 0.9999999999)  # the latter is 1 as float32
  elif not whole and allowed.low == 0:
    yield from (0, 0.0, -0.0, -1.0, 1e-60)  # the last is 0 as float32
  elif whole:
    yield from (allowed.low - 1, allowed.high + 1, float(allowed.low), allowed.low + 0.5)


@pytest.mark.parametrize(("owner", "name", "allowed", "whole", "path"), list(fields()))
def test_every_number_has_a_range_and_is_refused_by_name_outside(owner, name, allowed, whole, path):
  if name in ("guidance", "label") and allowed is None:
    return  # an array, perhaps traced, or names
  assert allowed is not None, f"{name} has no range"
  for value in outside(allowed, whole):
    given = (value,) if path else value
    with pytest.raises(ValueError, match=f"^{name} must be .* got "):
      ranges.check_all(owner, {name: given})
  ends = [x for x, belongs in zip(allowed[:2], allowed[2:], strict=True) if belongs]
  middle = [] if whole else [0.5]
  for value in (*ends, *middle):
    kind = int if whole else float
    for inside in (kind(value), np.int64(value) if whole else np.float32(value)):
      ranges.check_all(owner, {name: (inside,) if path else inside})


@pytest.mark.parametrize("preset", list(presets.PRESETS.values()))
def test_presets_and_defaults_are_in_their_ranges(preset):
  args = preset()
  for section in (args.run, args.data, args.network, args.diffusion, args.optimisation):
    ranges.check_all(section)
  ranges.check_all(sample_images.Args())
  defaults = {n: p.default for n, p in inspect.signature(fit).parameters.items() if p.default is not p.empty}
  ranges.check_all(fit, defaults)


@pytest.mark.parametrize(
  ("section", "change"),
  [
    ("optimisation", {"clip": -1.0}),
    ("optimisation", {"ema": math.nan}),
    ("optimisation", {"emas": (0.9, 1.0)}),
    ("optimisation", {"warmup": -5}),
    ("data", {"crop": "0"}),
    ("data", {"image_size": "64x"}),
    ("network", {"blocks": -1}),
    ("network", {"multipliers": (1, 0)}),
    ("diffusion", {"schedule": "cubic"}),
    ("run", {"steps": 0}),
    ("run", {"max_minutes": -1.0}),
  ],
)
def test_the_command_refuses_before_anything_is_read(section, change, monkeypatch):
  monkeypatch.setattr(train_model.datasets, "open_data", lambda *_, **__: pytest.fail("data were read"))
  args = presets.digits()
  args = dataclasses.replace(args, **{section: dataclasses.replace(getattr(args, section), **change)})
  with pytest.raises(ValueError, match=f"^{next(iter(change))} must be "):
    train_model.train(args)


@pytest.mark.parametrize(
  "options",
  [
    {"clip": 3e38, "warmup": 2**31 - 1, "ema": 0.9999999, "seed": 2**63 - 1, "save_every": 2**31 - 1},
    {"clip": 2e-38, "learning_rate": 2e-38, "ema": 0.0, "emas": (0.5,), "max_minutes": 3e38},
  ],
)
def test_the_ends_of_the_ranges_train(options, tmp_path):
  apply = lambda params, x, t: x * params
  network = (lambda key, x, t: np.float32(0.5), apply)
  pixels = np.zeros((8, 2, 2, 1), np.uint8)
  quick = {"batch_size": 4, "sample_every": 0, "progress": False}
  with jax.numpy_dtype_promotion("standard"):
    model = fit(tmp_path, network, pixels, steps=2, **quick, **options)
  assert model.step == 2
  assert np.isfinite(model.params)
