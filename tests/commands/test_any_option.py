"""Any value of any option of ``ddim train``: two steps of a tiny network, or a refusal by name, at once."""

import dataclasses
import math
import time
import typing

import jax
import numpy as np
import pytest

from ddim_jax import data
from ddim_jax.commands import presets, train_model
from ddim_jax.models.config import Diffusion, Network
from tests.test_ranges import numbers

TRIED, TRAINED = 12, 1
"""Values of a section that are tried, and accepted ones that are trained with, drawn at random."""
ELSEWHERE = ("data", "data_dir", "split", "distributed", "coordinator", "num_processes", "process_id")
"""What to read, and from where; other processes."""
WORDS = {
  "predict": "parameterisation", "zero_terminal_snr": "zero", "origin": "", "image_size": "image",
  "conditional": "classes", "eval_every": "inception", "eval_num": "inception", "inception": "inception",
}  # fmt: skip
"""What a refusal speaks of where it is not the option itself."""


MODES = ("float32", "bfloat16", "x64")
"""Types of the network's computation; and 64 bits allowed."""


def tiny(workdir, mode):
  args = presets.digits()
  small = {"channels": 8, "multipliers": (1,), "blocks": 1, "attention": (), "groups": 4}
  if mode == "bfloat16":
    small["dtype"] = mode
  optimisation = dataclasses.replace(args.optimisation, batch_size=4, warmup=1)
  run = dataclasses.replace(args.run, workdir=workdir, steps=2, sample_every=0, save_every=9)
  return dataclasses.replace(
    args, run=run, network=Network(**small), diffusion=Diffusion(levels=9, predict="v"),
    optimisation=optimisation,
  )  # fmt: skip


def values(hint):
  """Values of every kind for an annotation."""
  for allowed, whole, path in numbers(hint):
    low = allowed.low
    some = (-1, 0, 1, 3, 4, 2**31, 10**30, 2.5) if whole else (-1.0, 0.0, 1e-30, 0.3, 1.0, 1e30, 1e39)
    for value in (*some, low, math.nan, math.inf, "x", True):
      yield (value,) if path else value
    if path:
      yield from ((), (1, 1), (1, 0), (8, 4), (0.5, 0.9))
  arguments = typing.get_args(hint)
  if typing.get_origin(hint) is typing.Literal:
    yield from (*arguments, "nonsense", 7, None)
  elif hint is bool:
    yield from (True, False)
  elif str in arguments or "Path" in str(hint):
    yield from ("gs://bucket/x", "~no-such-user/x", "a\0b", "", "[1]/x")


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("section", ["run", "data", "network", "diffusion", "optimisation"])
def test_any_value_trains_two_steps_or_is_refused_by_name_before_data_are_read(
  section, mode, tmp_path, monkeypatch
):
  rng, read = np.random.default_rng(MODES.index(mode)), []
  pixels, labels = rng.integers(0, 256, (8, 8, 8, 1), np.uint8), np.arange(8, dtype=np.int32) % 2
  source = data.in_memory("tiny", pixels, labels, ("a", "b"))
  monkeypatch.setattr(train_model.datasets, "open_data", lambda data, **_: read.append(data) or source)
  kind = getattr(tiny(tmp_path, mode), section)
  hints = typing.get_type_hints(type(kind), include_extras=True)
  cases = [(name, value) for name in hints if name not in ELSEWHERE for value in values(hints[name])]
  cases = [cases[i] for i in rng.permutation(len(cases))[:TRIED]]
  accepted, refused = [], 0
  standard, wide = jax.numpy_dtype_promotion("standard"), jax.enable_x64(mode == "x64")
  with monkeypatch.context() as patch, standard, wide:

    class Reached(Exception):
      pass

    def reached(*_, **__):
      raise Reached

    patch.setattr(train_model, "fit", reached)
    for name, value in cases:
      args = tiny(tmp_path, mode)
      args = dataclasses.replace(args, **{section: dataclasses.replace(kind, **{name: value})})
      read.clear()
      began = time.process_time()
      try:
        train_model.train(args)
      except Reached:
        accepted.append((name, args))
      except (ValueError, FileNotFoundError) as error:
        refused += 1
        words = (name, name.replace("_", " "), WORDS.get(name, name))
        assert any(word in str(error) for word in words), (name, value, str(error))
        assert not read or name in ("attention", "origin", "image_size", "conditional"), (name, value)
        assert time.process_time() - began < 5, (name, value)  # the first traces a network
  assert refused > 2 or section == "data"
  typed = mode == "float32" or section in (
    "network",
    "diffusion",
  )  # the others decide no type of a computation
  chosen = rng.permutation(len(accepted))[: TRAINED * typed]
  for number, index in enumerate(chosen):
    name, args = accepted[index]
    workdir = tmp_path / str(number)
    args = dataclasses.replace(args, run=dataclasses.replace(args.run, workdir=workdir, steps=2))
    with jax.numpy_dtype_promotion("standard"), jax.enable_x64(mode == "x64"):
      try:
        assert train_model.train(args) == 0, name
      except ValueError as error:  # what depends on the machine or the images
        assert name in str(error), (name, str(error))
        continue
    assert len((workdir / "metrics.jsonl").read_text().splitlines()) == 2, name
