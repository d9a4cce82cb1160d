"""What a run will take: its operations are counted before anything is compiled, and weeks are warned of."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddim_jax.runs import objective
from ddim_jax.runs.outlook import operations, outlook, say_outlook


@pytest.mark.parametrize("parts", [1, 2, 8])
def test_the_operations_of_all_devices_and_parts_are_counted(parts):
  losses = lambda w, x, *_: jnp.sum(x @ w, axis=1)
  wanted = objective.accumulated(losses, parts)
  gradient = jax.pmap(jax.grad(lambda w, *x: jnp.sum(wanted(w, *x))), in_axes=(None, 0, 0, 0, 0))
  batch = np.ones((4, 64, 256), np.float32), *[np.zeros((4, 64), np.float32)] * 3
  lowered = gradient.lower(np.ones((256, 256), np.float32), *batch)
  product = 2 * (4 * 64) * 256 * 256  # for the gradient of w; and one for the losses, where they are computed
  for update in (lowered, lowered.compile()):  # the latter is what is counted on TPUs and GPUs
    assert 0.99 * product < operations(update, parts) < 2.2 * product


def test_weeks_are_warned_of_and_nothing_is_said_of_what_is_not_counted():
  few, *none = outlook(3e9, 10)
  assert re.fullmatch(
    r"outlook     3 GFLOP and about \S+ s per step; 10 steps by \d+ \w+ \d{4}, \d\d:\d\d", few
  )
  assert not none
  _, warning = outlook(3e9, 10**12)
  assert re.search(r"warning: that is about [\d,]+ weeks on this machine: take fewer steps", warning)
  assert outlook(0.0, 10) == []


def test_it_is_said_where_operations_are_counted(capsys):
  class Uncounted:
    """A program lowered for a TPU or GPU: JAX gives None for it. There is neither here."""

    def cost_analysis(self):
      return None

  assert not say_outlook(Uncounted(), 1, 10)
  assert capsys.readouterr().out == ""
  x = np.ones((8, 8), np.float32)
  assert say_outlook(jax.jit(jnp.matmul).lower(x, x), 1, 10)
  assert capsys.readouterr().out.startswith("outlook     ")
