import functools
import itertools
import time

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from ddim_jax import checkpoints, training

CONFIG = {"name": "test", "sizes": [1, 2]}


def make_state(seed=0):
  params = {"dense": {"kernel": jax.random.normal(jax.random.key(seed), (8, 16)), "bias": jnp.zeros(16)}}
  return training.create_state(params, optax.adam(1e-3)).replace(step=jnp.array(seed, jnp.int32))


@pytest.fixture
def saved(tmp_path):
  with checkpoints.open_manager(tmp_path / "c") as manager:
    for step in (1, 2):
      checkpoints.save(manager, step, make_state(step), CONFIG)
  return tmp_path / "c"


def test_what_is_saved_comes_back_bit_for_bit(saved):
  restored = checkpoints.restore_latest(saved)
  assert (restored.step, restored.config) == (2, CONFIG)
  template = jax.tree.map(np.zeros_like, make_state())
  chex.assert_trees_all_equal(checkpoints.fill(template, restored.arrays), jax.device_get(make_state(2)))
  assert checkpoints.restore_latest(saved, step=1).step == 1
  average = checkpoints.subtree(restored.arrays, "ema")
  chex.assert_trees_all_equal(average, jax.device_get(make_state(2).ema))


def test_a_save_is_a_snapshot(tmp_path):
  state = {"x": np.ones((2000, 1000), np.float32)}
  with checkpoints.open_manager(tmp_path / "c") as manager:
    checkpoints.save(manager, 1, state, CONFIG)
    state["x"][:] = 5  # what donation does to the buffer
  assert np.all(checkpoints.restore_latest(tmp_path / "c").arrays["x"] == 1)


@pytest.mark.parametrize("jump", [10.0, 1300.0, 1e4, 6e5, 1.8e9, -10.0, -6e5, -1.8e9])
def test_a_clock_that_jumps_in_the_middle_of_a_save_does_not_end_it(tmp_path, monkeypatch, jump):
  """Up to one that is set for the first time since 1970."""
  now, off = time.time, [0.0]
  monkeypatch.setattr(time, "time", lambda: now() + off[0])
  written = np.random.default_rng(0).random(4_000_000)
  with checkpoints.open_manager(tmp_path / "c") as manager:
    checkpoints.save(manager, 1, {"x": np.zeros(3)}, CONFIG)
    checkpoints.save(manager, 2, {"x": written}, CONFIG)
    off[0] = jump
    manager.wait_until_finished()
    checkpoints.save(manager, 3, {"x": np.zeros(3)}, CONFIG)
    off[0] = 0.0
  assert checkpoints.steps(tmp_path / "c") == [2, 3]
  np.testing.assert_array_equal(checkpoints.restore_latest(tmp_path / "c", 2).arrays["x"], written)


def test_a_flipped_byte_is_noticed(saved):
  files = [f for f in (saved / "2" / "state").rglob("*") if f.is_file()]
  largest = max(files, key=lambda f: f.stat().st_size)
  raw = bytearray(largest.read_bytes())
  raw[len(raw) // 2] ^= 1
  largest.write_bytes(raw)
  with pytest.raises(checkpoints.DamagedError, match="step 2"):
    checkpoints.restore_latest(saved)


def test_keeps_the_newest_and_every_nth(tmp_path):
  with checkpoints.open_manager(tmp_path / "c", keep=2, keep_every=4) as manager:
    for step in range(1, 12):
      checkpoints.save(manager, step, {"x": np.zeros(3)}, CONFIG)
    manager.wait_until_finished()
    assert sorted(manager.all_steps()) == [4, 8, 10, 11]


def test_nothing_there(tmp_path, saved):
  with pytest.raises(FileNotFoundError, match="does not exist"):
    checkpoints.restore_latest(tmp_path / "nowhere")
  (tmp_path / "empty").mkdir()
  with pytest.raises(FileNotFoundError, match="no checkpoint of any step"):
    checkpoints.restore_latest(tmp_path / "empty")
  with pytest.raises(FileNotFoundError, match=r"step 7 .*\[1, 2\]"):
    checkpoints.restore_latest(saved, step=7)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"b": np.zeros(2)}, "b is not part of this model"),
    ({"a": None}, "a is missing"),
    ({"a": np.zeros(4, np.float32)}, r"a is float32\[4\], expected float32\[3\]"),
    ({"a": np.zeros(3, np.float64)}, r"a is float64\[3\], expected float32\[3\]"),
  ],
)
def test_fill_refuses_what_does_not_fit(change, message):
  arrays = {"a": np.zeros(3, np.float32)} | change
  arrays = {name: array for name, array in arrays.items() if array is not None}
  with pytest.raises(ValueError, match=message):
    checkpoints.fill({"a": np.zeros(3, np.float32)}, arrays)


def test_when_no_checkpoint_is_sound_nothing_is_touched(saved):
  """An error that passes, such as of a network disk, must not cost a run its checkpoints."""
  for step in ("1", "2"):
    (saved / step / "meta" / "metadata").rename(saved / step / "meta" / "hidden")
  with checkpoints.open_manager(saved) as manager:
    with pytest.raises(checkpoints.DamagedError, match="none of the checkpoints"):
      checkpoints.restore_newest_sound(manager, print)
    assert sorted(manager.all_steps()) == [1, 2]


def test_a_folder_can_be_read_while_a_run_deletes_steps(saved, monkeypatch):
  """Orbax lists the folder and then looks at each step. A step goes between the two about once in 100 real
  tries, so here it does so by a patch, twice; and a step that never comes back is still an error.
  """
  genuine, tries = ocp.CheckpointManager, itertools.count(1)

  def manager(*args, failures=2, **kwargs):
    if next(tries) <= failures:
      raise FileNotFoundError(str(saved / "1"))
    return genuine(*args, **kwargs)

  monkeypatch.setattr(ocp, "CheckpointManager", manager)
  assert checkpoints.steps(saved) == [1, 2]
  assert checkpoints.restore_latest(saved).step == 2
  monkeypatch.setattr(ocp, "CheckpointManager", functools.partial(manager, failures=10**6))
  with pytest.raises(FileNotFoundError):
    checkpoints.steps(saved)
