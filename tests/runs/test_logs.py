import io
import json

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event

from ddim_jax.runs import logs


def read_events(path):
  """Through TensorBoard's own reader, which checks every record."""
  return list(RawEventFileLoader(str(path)).Load())


def test_every_step_once_across_a_restart(tmp_path):
  first = logs.Metrics(tmp_path, 0)
  for step in (1, 2, 3):
    first.write(step, {"loss": 1 / step})
  first.flush()
  with (tmp_path / "metrics.jsonl").open("a") as file:
    file.write('{"step": 4, "lo')  # killed in the middle of a line
  second = logs.Metrics(tmp_path, 2)
  for step in (3, 4):
    second.write(step, {"loss": 1 / step})
  second.flush()
  lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
  assert lines == [{"step": step, "loss": 1 / step} for step in (1, 2, 3, 4)]


def test_tensorboard_events(tmp_path):
  log = logs.Metrics(tmp_path, 7)
  log.write(8, {"loss": 0.5, "grad_norm": 2.0})
  log.flush()
  log.write(9, {"loss": 0.25})
  log.flush()
  (path,) = (tmp_path / "tensorboard").iterdir()
  head, start, *steps = map(Event.FromString, read_events(path))
  assert head.file_version == "brain.Event:2"
  assert (start.step, start.session_log.status) == (7, 1)
  values = [(event.step, {v.tag: v.simple_value for v in event.summary.value}) for event in steps]
  assert values == [(8, {"loss": 0.5, "grad_norm": 2.0}), (9, {"loss": 0.25})]


def test_a_write_that_fails_names_the_file(tmp_path):
  log = logs.Metrics(tmp_path, 0)
  (tmp_path / "metrics.jsonl").unlink()
  (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
  log.write(1, {"loss": 0.5})
  with pytest.raises(OSError, match=r"No space left on device: '.*metrics.jsonl'"):
    log.flush()


def test_what_the_clock_says_and_pictures_are_events_only(tmp_path):
  pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
  log = logs.Metrics(tmp_path, 0)
  log.write(1, {"loss": 0.5}, {"images_per_second": 80.0})
  log.write_picture(1, pixels)
  log.flush()
  assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 1, "loss": 0.5}
  (path,) = (tmp_path / "tensorboard").iterdir()
  _, _, scalars, picture = map(Event.FromString, read_events(path))
  assert {v.tag: v.simple_value for v in scalars.summary.value} == {"loss": 0.5, "images_per_second": 80.0}
  (value,) = picture.summary.value
  assert (value.tag, value.image.height, value.image.width) == ("samples", 5, 7)
  np.testing.assert_array_equal(Image.open(io.BytesIO(value.image.encoded_image_string)), pixels)
