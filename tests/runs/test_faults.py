"""Faults of the machine, injected: no room at each write, signals once and twice, a clock that jumps."""

import contextlib
import json
import resource
import signal
import time

import numpy as np
import pytest
import tqdm.std

import ddim_jax
from ddim_jax import atomic, checkpoints, data, models, plots, training
from ddim_jax.commands import outputs
from ddim_jax.data import cache
from ddim_jax.data.sources import Found
from ddim_jax.models import config as configs
from ddim_jax.runs import fit, logs, quality
from ddim_jax.runs.header import rest_of_the_data
from tests.helpers import small_file_system

pytestmark = pytest.mark.usefixtures("promotion")

NOISE = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
QUICK = {"batch_size": 4, "warmup": 0, "sample_every": 0, "learning_rate": 0.1, "ema": 0.5}


@contextlib.contextmanager
def room(size):
  """No file may grow beyond so many bytes: the next write fails as on a full disk, with another number."""
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def write_metrics(path):
  book = logs.Metrics(path.parent, 0)
  for step in range(1, 200):
    book.write(step, {"loss": 1 / step})
  book.flush()


def write_cache(path):
  def make(write):
    write(NOISE)
    return np.array([0]), Found({}, {}, None, 1, ())

  cache.cached(path, "x", "x", make)


def write_statistics(path):
  quality.save(path, quality.add(None, NOISE[0].astype(np.float64), np.ones((96, 4))))


def export(path):
  ddim_jax.load("fashion_mnist").save(path)


WRITERS = {
  "a.png": lambda path: plots.save_png(path, NOISE),
  "small.jpg": lambda path: plots.save_png(path, np.tile(NOISE[:48, :48], (10, 10, 1))),
  "a.bmp": lambda path: plots.save_png(path, np.zeros((480, 40, 3), np.uint8)),
  "a.JPG": lambda path: plots.save_png(path, NOISE),
  "a.tiff": lambda path: plots.save_png(path, NOISE),
  "a.gif": lambda path: plots.save_animation(path, np.stack([NOISE, 255 - NOISE])),
  "a.webp": lambda path: plots.save_animation(path, np.stack([NOISE, 255 - NOISE])),
  "curve.png": lambda path: plots.save_curve(path, np.arange(9), np.arange(9), "x", "y"),
  "curve.svg": lambda path: plots.save_curve(path, np.arange(9), np.arange(9), "x", "y"),
  "made.png": lambda path: plots.save_png(path, NOISE, {"seed": 1}),
  "a.json": lambda path: outputs.write_json(path, list(range(9999))),
  "000000.png": lambda path: outputs.write_files(path.parent, 1, 1, lambda indices: NOISE[None], {}),
  "a.partial.npy": lambda path: outputs.write_npz(
    path.with_name("a.npz"), 9, 9, lambda indices: np.stack([NOISE] * 9), {}, NOISE.shape
  ),
  "a.npy": lambda path: data.save_array(path, NOISE),
  "a.npz": lambda path: data.save_array(path, NOISE),
  "a.tif": lambda path: data.save_array(path, NOISE[..., :1]),
  "a.safetensors": export,
  "unet/diffusion_pytorch_model.safetensors": lambda path: export(path.parent.parent),
  "metrics.jsonl": write_metrics,
  "seen.npz": write_statistics,
  "cache": write_cache,
}
MORE = {"000000.png": ["settings.json"], "metrics.jsonl": ["metrics.jsonl", "tensorboard"]}
"""What may be there besides, whole."""


@pytest.mark.parametrize("name", WRITERS)
def test_where_there_is_no_room_the_file_is_named_and_what_was_there_stays(name, tmp_path):
  path = tmp_path / "out" / name
  (tmp_path / "out").mkdir()
  before = {}
  if path.suffix and name not in MORE and name.partition("/")[2] == "" and "partial" not in name:
    path.write_bytes(b"before")
    before = {name: b"before"}
  with room(3000), pytest.raises(OSError) as caught:
    WRITERS[name](path)
  assert str(path) in str(caught.value)
  assert len(str(caught.value).splitlines()) == 1
  files = [file for file in (tmp_path / "out").rglob("*") if file.is_file()]
  if path.suffix and name not in MORE:
    found = {str(file.relative_to(tmp_path / "out")): file.read_bytes() for file in files}
    allowed = {"a.settings.json", "a.partial.npy"} if "partial" in name else set()
    assert {key: value for key, value in found.items() if key not in allowed} == before
  assert not [file for file in files if file.name.endswith(".partial")]
  if name != "unet/diffusion_pytorch_model.safetensors":
    WRITERS[name](path)  # with room, the same call does it
    assert path.exists() or "partial" in name


def test_what_is_written_through_a_map_has_its_room_before(tmp_path):
  """On a full disk, such a write would end the program with no word at all."""
  draw = lambda indices: np.stack([NOISE] * 9)
  with (
    small_file_system(tmp_path, "200k"),
    pytest.raises(OSError, match=r"No space left on device: .*x\.partial\.npy"),
  ):
    outputs.write_npz(tmp_path / "x.npz", 9, 9, draw, {}, NOISE.shape)


def pixels():
  return NOISE[:64].reshape(-1, 2, 2, 3)[:16]


def network():
  return lambda key, x, t: np.float32(0.5), lambda params, x, t: x * params


@pytest.fixture(scope="module")
def whole(promotion, tmp_path_factory):
  """Twelve updates in one go."""
  workdir = tmp_path_factory.mktemp("whole")
  fit(workdir, network(), pixels(), steps=12, progress=False, **QUICK)
  return (workdir / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize(
  "numbers",
  [(signal.SIGTERM, signal.SIGTERM), (signal.SIGHUP,), (signal.SIGHUP, signal.SIGTERM, signal.SIGHUP)],
  ids=["SIGTERM twice", "SIGHUP", "three"],
)
def test_signals_however_many_save_once_and_the_run_goes_on(numbers, whole, tmp_path, capsys):
  def log(step, values):
    if step == 4:
      for number in numbers:
        signal.raise_signal(number)

  model = fit(tmp_path, network(), pixels(), steps=12, progress=False, log=log, **QUICK)
  assert 4 < model.step < 12
  assert checkpoints.steps(tmp_path / "checkpoints") == [model.step]
  lines = (tmp_path / "metrics.jsonl").read_bytes()
  assert whole.startswith(lines)
  assert len(lines.splitlines()) == model.step
  assert fit(tmp_path, network(), pixels(), steps=12, progress=False, **QUICK).step == 12
  assert (tmp_path / "metrics.jsonl").read_bytes() == whole


def test_a_second_run_in_the_folder_is_refused_and_changes_nothing(whole, tmp_path):
  def log(step, values):
    if step == 4:
      with pytest.raises(ValueError, match=r"is in use: process \d+ is training there"):
        fit(tmp_path, network(), pixels(), steps=12, progress=False, **QUICK)

  fit(tmp_path, network(), pixels(), steps=12, progress=False, log=log, **QUICK)
  assert (tmp_path / "metrics.jsonl").read_bytes() == whole


def test_a_clock_that_jumps_changes_nothing(whole, tmp_path, monkeypatch, capfd):
  """Back by a week, on by two: steps, limits and locks go by a clock that nobody sets."""
  now, off = time.time, [0.0]
  monkeypatch.setattr(time, "time", lambda: now() + off[0])
  monkeypatch.setattr(time, "time_ns", lambda: int(1e9 * time.time()))
  monkeypatch.setattr(tqdm.std, "time", time.time)

  def log(step, values):
    off[0] = {2: -6e5, 3: 6e5, 8: 0.0, 9: -6e5}.get(step, off[0])

  limits = {"max_minutes": 60.0, "log": log}
  assert fit(tmp_path, network(), pixels(), steps=5, **limits, **QUICK).step == 5
  (tmp_path / ".lock").write_text("1")  # of a run that was killed, at whatever time
  assert fit(tmp_path, network(), pixels(), steps=12, **limits, **QUICK).step == 12
  assert (tmp_path / "metrics.jsonl").read_bytes() == whole
  assert checkpoints.steps(tmp_path / "checkpoints") == [5, 12]
  assert len(list((tmp_path / "tensorboard").iterdir())) == 2
  shown = capfd.readouterr().err
  assert "12/12" in shown
  assert "-" not in shown.partition("images/s")[0].rpartition("[")[2]


def test_a_lock_without_room_for_its_name_holds_all_the_same(tmp_path):
  with room(0), atomic.alone(tmp_path, "a"), pytest.raises(ValueError, match="in use: process unknown b"):  # noqa: SIM117
    with atomic.alone(tmp_path, "b"):
      pass


@pytest.mark.parametrize(
  ("schedule", "share"),
  [
    (ddim_jax.linear_schedule(100), "36%"),
    (ddim_jax.linear_schedule(10), "90%"),
    (ddim_jax.quadratic_schedule(300), "11%"),
    (ddim_jax.linear_schedule(), None),
    (ddim_jax.cosine_schedule(10), None),
    (ddim_jax.jsd_schedule(5), None),
    (ddim_jax.zero_terminal_snr(ddim_jax.linear_schedule(100)), None),
  ],
)
def test_levels_too_few_for_noise_alone_are_warned_of(schedule, share):
  said = rest_of_the_data(schedule)
  assert (said is None) == (share is None)
  assert said is None or (share in said and str(schedule.T) in said)


@pytest.mark.parametrize(
  "make", [ddim_jax.flow_schedule, lambda: ddim_jax.zero_terminal_snr(ddim_jax.linear_schedule(20))]
)
def test_a_model_from_which_nobody_could_sample_is_not_trained(make):
  """Where nothing is left of the data, the noise says nothing of them."""
  for made in (
    lambda schedule: ddim_jax.models.from_network(network(), (2, 2, 3), schedule=schedule),
    lambda schedule: training.example_losses(lambda *given: given[1], schedule),
  ):
    with pytest.raises(ValueError, match="parameterisation must be V, X0, EDM or FLOW"):
      made(make())


@pytest.mark.parametrize("options", [{"schedule": "flow"}, {"zero_terminal_snr": True}])
def test_nor_is_one_of_a_configuration(options):
  config = configs.Config(diffusion=configs.Diffusion(**options))
  with pytest.raises(ValueError, match="predict must be x0, v, edm or flow, got eps"):
    models.build.from_config(config, (8, 8, 1))


def test_the_warning_is_said_when_a_run_begins(tmp_path, capsys):
  model = ddim_jax.models.from_network(network(), (2, 2, 3), schedule=ddim_jax.linear_schedule(100))
  fit(tmp_path, model, pixels(), steps=1, **QUICK)
  assert "the data still make up 36%" in capsys.readouterr().out
  assert json.loads((tmp_path / "metrics.jsonl").read_text())["step"] == 1
