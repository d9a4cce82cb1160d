"""What is measured on a GPU in one command, by a tiny network on the CPU."""

import json

import pytest

from experiments.bench import sides
from experiments.bench.accelerator import accelerator, readme

PRINTS = """
import json, sys, time
for name in json.loads(sys.argv[1])["tasks"][:{count}]:
  print(json.dumps({{name: {{"milliseconds": 1.0}}}}), flush=True)
print("something else")
{then}
"""


def process_that(tmp_path, count, then):
  """A group of two tasks whose process does the first ``count`` and then something else."""
  (tmp_path / "side.py").write_text(PRINTS.format(count=count, then=then))
  return sides.Group("side", ("a/1/x", "a/2/x"), 60, {"PYTHONPATH": str(tmp_path)})


@pytest.mark.slow
def test_what_a_process_measured_before_it_was_stopped_is_kept(tmp_path):
  group = process_that(tmp_path, 1, "time.sleep(60)")
  rows = sides.start(group, {}, seconds=3)
  assert rows == {"a/1/x": {"milliseconds": 1.0}, "a/2/x": {"not measured": "stopped after 3 s"}}


def test_a_process_that_fails_says_why(tmp_path):
  group = process_that(tmp_path, 1, "sys.exit('out of memory')")
  assert sides.start(group, {}, seconds=30)["a/2/x"] == {
    "error": "the process ended with status 1: out of memory"
  }


def test_a_task_that_raises_leaves_the_others_their_turn(capsys):
  def fail():
    raise ValueError("no such algorithm\nat all")

  sides.serve({"a/1/x": fail, "a/2/x": lambda: {"milliseconds": 2.0}})
  rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
  assert rows == [{"a/1/x": {"error": "ValueError: no such algorithm"}}, {"a/2/x": {"milliseconds": 2.0}}]


def test_times_are_of_a_unit_of_work_without_the_first_calls(monkeypatch):
  """A clock that a call moves on: 5 s for the first, 2 s for the second, 1 s for the others."""
  now, taken = [0.0], iter([5, 2, 1, 1, 1])
  monkeypatch.setattr(sides.time, "perf_counter", lambda: now[0])

  def call():
    now[0] += next(taken)

  expected = {"milliseconds": 250.0, "range": [250.0, 250.0], "first_call_seconds": 5.0}
  assert sides.timed(call, rounds=3, work=4) == expected


def test_the_rows_say_what_was_not_measured():
  rows = {
    "sample/8/ddim_jax, bfloat16": {"milliseconds": 0.5, "times_ours": 1.0},
    "sample/8/TF32": {"milliseconds": 1.0, "times_ours": 2.0},
    "start/cold/preset": {"seconds": 80.0},
    "parity/output/here": {"bfloat16": {"relative_rms": 0.01}},
  }
  text = readme({"rows": rows, "about": {"machine": {"device": "a GPU"}}})
  assert (
    "| sample 8, an image and step | 0.5 (1.00) | not measured | not measured | 1 (2.00) | not measured |"
    in text
  )
  assert "First training step: 80.0 s, with the compilation cache not measured s" in text
  assert "Parity of the output, bfloat16: 0.01" in text


@pytest.mark.parametrize(
  ("options", "message"),
  [({"minutes": 0}, "--minutes must be positive"), ({"rounds": 0}, "--rounds must be")],
)
def test_refuses(options, message):
  with pytest.raises(ValueError, match=message):
    accelerator("tiny", **options)


@pytest.mark.bench
def test_all_of_it_on_a_cpu(tmp_path, monkeypatch, capsys):
  """torch.compile is left out; the second run measures one part and keeps the others."""
  pytest.importorskip("diffusers")
  monkeypatch.setenv("OMP_NUM_THREADS", "1")
  accelerator("tiny", steps=2, rounds=1, minutes=15, out=tmp_path)
  assert "| sample 4, an image and step |" in capsys.readouterr().out
  results = json.loads((tmp_path / "accelerator_tiny.json").read_text())
  assert (tmp_path / "accelerator_tiny.png").read_bytes().startswith(b"\x89PNG")
  rows = results["rows"]
  failed = {task: row for task, row in rows.items() if {"error", "not measured"} & set(row)}
  assert not failed
  assert {task.split("/")[0] for task in rows} == {"product", "sample", "start", "train", "parity"}
  assert all(row["times_ours"] > 0 for task, row in rows.items() if task.startswith(("sample", "train")))
  parity = rows["parity/output/here"]
  assert parity["float32, highest"]["relative_rms"] < 1e-4
  # A bfloat16 has 8 bits.
  assert 1e-4 < parity["bfloat16"]["relative_rms"] < 0.1
  assert rows["parity/gradient/here"]["float32, highest"]["relative_rms"] < 1e-4
  accelerator("tiny", parts=("product",), rounds=1, out=tmp_path)
  again = json.loads((tmp_path / "accelerator_tiny.json").read_text())["rows"]
  assert set(again) == set(rows)
  assert again["start/cold/preset"] == rows["start/cold/preset"]
