"""Damaged checkpoints: each is noticed, and a run goes on from the newest that is sound."""

import re
import shutil

import numpy as np
import pytest

from ddim_jax import checkpoints
from tests.tiny_runs import arrays, assert_same_state, options


@pytest.fixture(scope="module")
def short(run, tmp_path_factory):
  """Checkpoints of steps 3 and 6."""
  workdir = tmp_path_factory.mktemp("short")
  run(*options(workdir, 6, "--save-every", 3))
  return workdir


def harm(path, how):
  raw = path.read_bytes()
  if how == "deleted":
    path.unlink()
  elif how == "emptied":
    path.write_bytes(b"")
  elif how == "truncated":
    path.write_bytes(raw[: len(raw) // 2])
  else:
    flipped = bytearray(raw)
    flipped[len(raw) // 2] ^= 0x10
    path.write_bytes(flipped)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # other reads of a failed one
@pytest.mark.parametrize("how", ["deleted", "emptied", "truncated", "flipped"])
def test_damage_to_any_file_is_reported_or_without_effect(short, tmp_path, how):
  """Every file of the newest step in turn: never a silently wrong value."""
  files = [f.relative_to(short) for f in (short / "checkpoints" / "6").rglob("*") if f.is_file()]
  sound = {step: arrays(short, step) for step in (3, 6)}
  assert len(files) > 5
  reported = 0
  for number, name in enumerate(files):
    copy = tmp_path / str(number)
    shutil.copytree(short, copy)
    harm(copy / name, how)
    messages = []
    with checkpoints.open_manager(copy / "checkpoints") as manager:
      restored = checkpoints.restore_newest_sound(manager, messages.append)
      assert_same_state(restored.arrays, sound[restored.step])
      if restored.step == 3:
        reported += 1
        (message,) = messages
        assert message.startswith("step 6 ")
        checkpoints.save(manager, 6, {"x": np.zeros(3)}, {})
      else:
        assert messages == [], name  # a file that holds nothing that is restored
    if restored.step == 3:
      assert checkpoints.restore_latest(copy / "checkpoints").arrays.keys() == {"x"}
  assert reported >= 3


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # as above
@pytest.mark.parametrize("how", ["deleted", "flipped", "empty directory"])
def test_a_run_with_a_damaged_checkpoint_goes_on_from_the_one_before(short, run, run_here, tmp_path, how):
  workdir = tmp_path / "run"
  shutil.copytree(short, workdir)
  newest = workdir / "checkpoints" / "6"
  if how == "empty directory":
    shutil.rmtree(newest)
    newest.mkdir()
  else:
    harm(max((newest / "state").rglob("*"), key=lambda f: f.stat().st_size * f.is_file()), how)
  assert "DAMAGED" in run_here("ddim_jax.__main__", "inspect", workdir, status=1).stdout
  done = run(*options(workdir, 6, "--save-every", 3))
  assert "warning: step 6 " in done.stdout
  assert "step 3 of 6" in done.stdout
  assert_same_state(arrays(workdir), arrays(short))
  assert (workdir / "metrics.jsonl").read_bytes() == (short / "metrics.jsonl").read_bytes()
  report = run_here("ddim_jax.__main__", "inspect", workdir).stdout
  assert re.search(r"step +6 .*MB +sound", report)
  assert "channels 16" in report
  assert "last metrics: step 6, " in report
  assert (workdir / "loss.png").stat().st_size > 5000
