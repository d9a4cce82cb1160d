"""A run of a tiny network on digits, by ``ddim train``: its options, and what it leaves."""

import time

import numpy as np

from ddim_jax import checkpoints

NETWORK = ("--width", 16, "--multipliers", 1, "--blocks", 1, "--attention")  # attention in the middle only
TINY = (*NETWORK, "--batch-size", 16, "--warmup", 5, "--sample-every", 0)


def options(workdir, steps, *more):
  return ("ddim_jax.__main__", "train", "digits", "--workdir", workdir, "--steps", steps, *TINY, *more)


def arrays(workdir, step=None):
  return checkpoints.restore_latest(workdir / "checkpoints", step).arrays


def assert_same_state(a, b, **tolerance):
  assert a.keys() == b.keys()
  for name in a:
    if tolerance:
      np.testing.assert_allclose(a[name], b[name], err_msg=name, **tolerance)
    else:
      assert a[name].tobytes() == b[name].tobytes(), name


def wait_for(condition, seconds=120, every=0.02):
  deadline = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < deadline, "waited too long"
    time.sleep(every)


def lines(workdir):
  path = workdir / "metrics.jsonl"
  return path.read_text().splitlines() if path.exists() else []


def newest(workdir):
  return max(checkpoints.steps(workdir / "checkpoints"), default=0)
