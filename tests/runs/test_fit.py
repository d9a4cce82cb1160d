"""Training as a function: arrays, networks of other kinds, optimisers, resuming, threads, Ctrl-C."""

import json
import signal
import threading
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event

import ddim_jax
from ddim_jax import checkpoints, models, plots
from ddim_jax.models import config as configs
from ddim_jax.runs import Interrupted, fit
from ddim_jax.runs.objective import accumulated, simple
from ddim_jax.schedules import log_snr_at

pytestmark = pytest.mark.usefixtures("promotion")

SHAPE = (4, 4, 1)
QUICK = {"batch_size": 16, "warmup": 0, "sample_every": 0, "progress": False, "learning_rate": 0.1}


def images(num=64):
  """Pictures that are dark on the left and bright on the right."""
  noise = np.random.default_rng(0).integers(0, 40, (num, *SHAPE), np.uint8)
  noise[:, :, 2:] += 200
  return noise


class Small(nn.Module):
  """A dense layer of image and level."""

  @nn.compact
  def __call__(self, x, t, labels=None):
    features = jnp.concatenate([x.reshape(x.shape[0], -1), t[:, None] / 1000], axis=1)
    return nn.Dense(16, name="out")(nn.swish(nn.Dense(32, name="hidden")(features))).reshape(x.shape)


def plain():
  """``(init, apply)`` of the same function."""
  module = Small()
  return (
    lambda key, x, t: module.init(key, x, t)["params"],
    lambda params, x, t: module.apply({"params": params}, x, t),
  )


def losses(workdir):
  return [json.loads(line)["loss"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def same(a, b, **tolerance):
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **tolerance), a, b)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
  """30 updates in one go, and the values that were logged."""
  workdir, seen = tmp_path_factory.mktemp("whole"), []
  model = fit(
    workdir, Small(), images(), steps=30, log=lambda step, values: seen.append((step, values)), **QUICK
  )
  return workdir, model, seen


def test_an_array_becomes_a_model_that_draws(whole):
  workdir, model, seen = whole
  assert (model.step, model.shape) == (30, SHAPE)
  found = losses(workdir)
  assert np.mean(found[-5:]) < 0.7 * np.mean(found[:5])
  assert [step for step, _ in seen] == list(range(1, 31))
  assert [values["loss"] for _, values in seen] == found
  assert {values["learning_rate"] for _, values in seen} == {np.float32(0.1)}
  assert model.sample(2, steps=5).shape == (2, *SHAPE)
  like = models.from_network(Small(), SHAPE)
  same(ddim_jax.load(workdir, like=like).params, model.params)
  with pytest.raises(ValueError, match="Small, is not this project's: give like"):
    ddim_jax.load(workdir)


@pytest.mark.slow
def test_tensorboard_gets_the_values_and_the_grids(tmp_path):
  """The rate rises to 0.1 in two updates; a grid says how it was made. Other loggers get both, in order."""
  model = models.from_network(Small(), SHAPE, schedule=ddim_jax.cosine_schedule(10))
  seen: list[tuple[int, str]] = []
  fit(
    tmp_path, model, images(), steps=3, log=lambda step, values: seen.append((step, "values")),
    log_samples=lambda step, grid: seen.append((step, f"{grid.dtype} of {grid.ndim}")),
    **{**QUICK, "warmup": 2, "sample_every": 2},
  )  # fmt: skip
  grid = "uint8 of 3"
  assert seen == [(1, "values"), (2, "values"), (2, grid), (3, "values"), (3, grid)]
  (path,) = (tmp_path / "tensorboard").iterdir()
  values = [v for raw in RawEventFileLoader(str(path)).Load() for v in Event.FromString(raw).summary.value]
  rates = [value.simple_value for value in values if value.tag == "learning_rate"]
  np.testing.assert_allclose(rates, [0, 0.05, 0.1], rtol=1e-6)
  assert [value.image.height > 4 for value in values if value.tag == "samples"] == [True, True]
  made = plots.read_settings(tmp_path / "samples" / "step_00000003.png")
  assert (made["S"], made["eta"], made["seed"], made["step"]) == (10, 0.0, 0, 3)


def test_a_run_in_two_parts_is_the_run_in_one(whole, tmp_path):
  workdir, model, _ = whole
  fit(tmp_path, Small(), images(), steps=13, **QUICK)
  again = fit(tmp_path, Small(), images(), steps=30, **QUICK)
  same(again.params, model.params, rtol=0)
  assert losses(tmp_path) == losses(workdir)


@pytest.mark.slow
def test_a_pair_of_functions_trains_the_same(whole, tmp_path):
  """And floats in [-1, 1] are what their pixels are."""
  array = np.asarray(images() / np.float32(127.5) - 1, np.float32)
  model = fit(tmp_path, plain(), array, steps=3, **QUICK)
  np.testing.assert_allclose(losses(tmp_path), losses(whole[0])[:3], rtol=1e-5)
  assert model.sample(1, steps=2).shape == (1, *SHAPE)


@pytest.mark.slow
def test_an_nnx_module_trains(tmp_path):
  from flax import nnx

  class Dense(nnx.Module):
    def __init__(self, rngs):
      self.inner, self.dropout = nnx.Linear(17, 16, rngs=rngs), nnx.Dropout(0.1, rngs=rngs)

    def __call__(self, x, t):
      features = jnp.concatenate([x.reshape(x.shape[0], -1), t[:, None] / 1000], axis=1)
      return self.dropout(self.inner(features)).reshape(x.shape)

  network = Dense(nnx.Rngs(0))
  before = np.asarray(network.inner.kernel[...])
  model = fit(tmp_path, network, images(), steps=20, **QUICK)
  assert np.mean(losses(tmp_path)[-5:]) < np.mean(losses(tmp_path)[:5])
  np.testing.assert_array_equal(network.inner.kernel[...], before)  # what was given stays as it was
  np.testing.assert_array_equal(model.sample(2, steps=3), model.sample(2, steps=3))


@pytest.mark.slow
@pytest.mark.parametrize("library", ["equinox", "haiku"])
def test_networks_of_other_libraries_train(tmp_path, library):
  module = pytest.importorskip(library, reason=f"{library} is not installed")
  flat = lambda x, t: jnp.concatenate([x.reshape(x.shape[0], -1), t[:, None] / 1000], axis=1)
  if library == "haiku":
    network = module.transform(lambda x, t: module.Linear(16)(flat(x, t)).reshape(x.shape))
  else:

    class Dense(module.Module):
      inner: module.nn.Linear

      def __call__(self, x, t):
        return jax.vmap(self.inner)(flat(x, t)).reshape(x.shape)

    network = Dense(module.nn.Linear(17, 16, key=jax.random.key(0)))
  model = fit(tmp_path, network, images(), steps=20, **QUICK)
  assert np.mean(losses(tmp_path)[-5:]) < np.mean(losses(tmp_path)[:5])
  assert model.sample(1, steps=2).shape == (1, *SHAPE)


def test_accumulating_is_the_same_update(whole, tmp_path):
  fit(tmp_path, Small(), images(), steps=4, accumulate=4, **QUICK)
  np.testing.assert_allclose(losses(tmp_path), losses(whole[0])[:4], rtol=1e-5)


def test_accumulated_gradients_are_those_of_the_mean():
  """Against the derivative of the whole batch; the largest array of a part is a quarter."""
  sizes = []

  def squares(params, keys, x, labels, t):
    sizes.append(x.shape[0])
    return jnp.mean((x * params - t[:, None]) ** 2, axis=1)

  batch = (jax.random.split(jax.random.key(0), 8), jnp.ones((8, 3)), jnp.zeros(8, jnp.int32), jnp.arange(8.0))
  mean = lambda losses: jax.value_and_grad(lambda params: jnp.mean(losses(params, *batch)))(jnp.float32(2))
  expected = mean(squares)
  sizes.clear()
  same(mean(accumulated(squares, 4)), expected, rtol=1e-6)
  assert set(sizes) == {2}


@pytest.mark.slow
def test_a_run_with_a_weighting_of_ones_own_can_be_loaded(tmp_path):
  unet = ddim_jax.UNet(channels=4, multipliers=(1,), blocks=1, attention=(), groups=2, out_channels=1)
  model = models.from_network(unet, SHAPE, schedule=ddim_jax.cosine_schedule(10))

  def halved(schedule, t, like):
    return jnp.full((like.shape[0], 1, 1, 1), 0.5)

  trained = fit(tmp_path, model, images(), steps=1, weighting=halved, **QUICK)
  same(ddim_jax.load(tmp_path).params, trained.params)


@pytest.mark.slow
def test_any_optimiser_and_schedule(tmp_path):
  rate = optax.warmup_cosine_decay_schedule(0.0, 0.1, 3, 20)
  options = {**QUICK, "learning_rate": rate}
  fit(tmp_path / "a", Small(), images(), steps=8, optimizer=optax.adamw, **options)
  fit(
    tmp_path / "b",
    Small(),
    images(),
    steps=8,
    optimizer=optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate)),
    **QUICK,
  )
  # A finished optimiser may look at single arrays: its state is no vector, and sums have another order.
  assert losses(tmp_path / "a") == pytest.approx(losses(tmp_path / "b"), rel=1e-5)


@pytest.mark.slow
def test_a_schedule_by_name_is_the_one_of_optax(tmp_path):
  """With AdamW and its weight decay, which a checkpoint remembers."""
  decayed = partial(optax.adamw, weight_decay=0.2)
  named = {**QUICK, "warmup": 2, "learning_rate_schedule": "cosine"}
  fit(tmp_path / "a", Small(), images(), steps=6, optimizer=decayed, **named)
  rate = optax.warmup_cosine_decay_schedule(0.0, 0.1, 2, 6)
  by_hand = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, weight_decay=0.2))
  fit(tmp_path / "b", Small(), images(), steps=6, optimizer=by_hand, **QUICK)
  assert losses(tmp_path / "a") == pytest.approx(losses(tmp_path / "b"), rel=1e-5)
  other = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, weight_decay=0.0))
  fit(tmp_path / "c", Small(), images(), steps=6, optimizer=other, **QUICK)
  assert losses(tmp_path / "a") != pytest.approx(losses(tmp_path / "c"), rel=1e-5)
  found = ddim_jax.load(tmp_path / "a", like=models.from_network(Small(), SHAPE)).config.optimisation
  kept = (found.optimizer, found.learning_rate_schedule, found.weight_decay, found.learning_rate)
  assert kept == ("adamw", "cosine", 0.2, 0.1)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"learning_rate_schedule": "linear"}, "learning_rate_schedule must be one of"),
    ({"learning_rate_schedule": "cosine", "learning_rate": optax.constant_schedule(1.0)}, "needs a number"),
    ({"learning_rate_schedule": "cosine", "warmup": 3}, "warmup must be below the 3 steps"),
    ({"learning_rate_schedule": "inverse_sqrt"}, "warmup must be positive"),
  ],
)
def test_a_schedule_that_cannot_be_is_refused(tmp_path, options, message):
  with pytest.raises(ValueError, match=message):
    fit(tmp_path, Small(), images(), steps=3, **QUICK | options)
  assert not any(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
  ("kind", "distribution", "mean", "deviation"),
  [("edm", "log_normal", -1.2, 1.2), ("flow", "logit_normal", 0.0, 1.0)],
)
def test_edm_and_flow_matching_by_name(tmp_path, kind, distribution, mean, deviation):
  """They train at real levels, whose log(sigma / alpha) has the papers' moments; files remember all of it."""
  network = configs.Network(4, (1,), 1, attention=(), dropout=0.0, groups=2)
  noise = configs.Diffusion(50, kind, predict=kind)
  model = models.build.from_config(configs.Config(network=network, diffusion=noise), SHAPE)
  options = QUICK | {"learning_rate": 1e-3, "level_distribution": distribution}
  trained = fit(tmp_path, model, images(), steps=2, **options)
  assert np.isfinite(trained.sample(2, steps=5)).all()
  trained.save(tmp_path / "x.safetensors")
  found = ddim_jax.load(tmp_path / "x.safetensors")
  kept = found.config.diffusion
  assert (kept.schedule, kept.predict, kept.level_distribution) == (kind, kind, distribution)
  assert found.parameterisation is {"edm": ddim_jax.EDM, "flow": ddim_jax.FLOW}[kind]
  _, levels = simple(None, distribution, False, 0.0)(found)
  t = jax.vmap(lambda key: levels(key, 0))(jax.random.split(jax.random.key(0), 4000))
  inside = t[(t > 1) & (t < 50)]
  log_sigma = -log_snr_at(found.schedule, inside, inside) / 2
  assert len(inside) > 3800 and np.any(inside != np.round(inside))
  np.testing.assert_allclose([log_sigma.mean(), log_sigma.std()], [mean, deviation], atol=0.1)


def test_pairs_of_levels_are_uniform(tmp_path):
  with pytest.raises(ValueError, match="antithetic goes with level_distribution uniform, got log_normal"):
    fit(tmp_path, Small(), images(), steps=1, level_distribution="log_normal", antithetic=True, **QUICK)


@pytest.mark.slow
def test_a_resumed_run_may_learn_at_another_rate_and_says_so(tmp_path, capsys):
  options = {**QUICK, "warmup": 2, "progress": True}
  fit(tmp_path, Small(), images(), steps=3, **options)
  model = fit(tmp_path, Small(), images(), steps=5, **{**options, "learning_rate": 1e-30, "batch_size": 32})
  said = capsys.readouterr().out
  assert "changed     learning_rate 0.1 before, 1e-30 from now on" in said
  assert "changed     batch_size 16 before, 32 from now on" in said
  state = checkpoints.restore_latest(tmp_path / "checkpoints").arrays
  before = checkpoints.restore_latest(tmp_path / "checkpoints", 3).arrays
  assert model.step == 5
  np.testing.assert_array_equal(state["params.out.kernel"], before["params.out.kernel"])


@pytest.mark.slow
def test_another_model_or_another_ema_is_refused(tmp_path):
  unet = ddim_jax.UNet(channels=4, multipliers=(1,), blocks=1, attention=(), groups=2, out_channels=1)
  model = models.from_network(unet, SHAPE, schedule=ddim_jax.cosine_schedule(10))
  fit(tmp_path, model, images(), steps=1, **QUICK)
  wide = models.from_network(unet.clone(channels=8), SHAPE, schedule=ddim_jax.linear_schedule(10))
  message = (
    r"channels: 4 in the checkpoint, 8 asked for; .*schedule: 'cosine' in the checkpoint, 'linear' asked"
  )
  with pytest.raises(ValueError, match=message):
    fit(tmp_path, wide, images(), steps=2, **QUICK)
  with pytest.raises(ValueError, match=r"emas: \(\) in the checkpoint, \(0.5,\) asked for"):
    fit(tmp_path, model, images(), steps=2, emas=(0.5,), **QUICK)
  found = ddim_jax.load(tmp_path)
  assert (found.schedule.T, found.network.channels) == (10, 4)


def test_fine_tuning_begins_with_the_weights_and_so_does_the_average(whole, tmp_path):
  _, model, _ = whole
  fit(tmp_path, model, images(), steps=1, ema=0.9, **QUICK)
  arrays = checkpoints.restore_latest(tmp_path / "checkpoints").arrays
  for name, before in checkpoints.flatten(model.params).items():
    expected = 0.9 * before + 0.1 * arrays[f"params.{name}"]
    np.testing.assert_allclose(arrays[f"ema.{name}"], expected, atol=1e-6)


def test_it_trains_beside_the_main_thread(whole, tmp_path):
  made = []

  def train():
    with jax.numpy_dtype_promotion("standard"):
      made.append(fit(tmp_path, Small(), images(), steps=3, **QUICK))

  thread = threading.Thread(target=train)
  before = signal.getsignal(signal.SIGINT)
  thread.start()
  thread.join()
  assert made[0].step == 3
  assert signal.getsignal(signal.SIGINT) is before
  assert losses(tmp_path) == losses(whole[0])[:3]


def test_ctrl_c_saves(tmp_path):
  stop = lambda step, values: step == 4 and signal.raise_signal(signal.SIGINT)
  with pytest.raises(Interrupted, match=r"stopped and saved at step \d+ in "):
    fit(tmp_path, Small(), images(), steps=1000, log=stop, **QUICK)
  (step,) = checkpoints.steps(tmp_path / "checkpoints")
  assert 4 < step < 20
  assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_two_runs_in_one_folder_are_refused(tmp_path):
  def second(step, values):
    fit(tmp_path, Small(), images(), steps=2, **QUICK)

  with pytest.raises(ValueError, match=r"is in use: process \d+ is training there"):
    fit(tmp_path, Small(), images(), steps=2, log=second, **QUICK)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"steps": 0}, r"steps must be an integer in \[1, .*got 0"),
    ({"batch_size": 0}, r"batch_size must be an integer in \[1, .*got 0"),
    ({"batch_size": 16, "accumulate": 3}, "of the 4 devices in 3 parts each, got 16"),
    ({"ema": 1.0}, r"ema must be in \[0, 1\), got 1.0"),
    ({"ema": float("nan")}, "ema must be .*got nan"),
    ({"learning_rate": -1.0}, r"learning_rate must be in \(0, inf\), got -1.0"),
    ({"learning_rate": float("inf")}, "learning_rate must .*got inf"),
    ({"warmup": -1}, r"warmup must be an integer in \[0, "),
    ({"clip": 0.0}, r"clip must be in \(0, inf\), got 0.0"),
    ({"weighting": "more"}, "weighting must be one of none, min_snr, .*got 'more'"),
    ({"save_every": 0}, r"save_every must be an integer in \[1, "),
    ({"seed": -1}, "seed must be .*got -1"),
    ({"labels": np.array([1, 2])}, r"labels must be \[64\]"),
    ({"classes": ("a",), "labels": np.ones(64, int)}, r"labels must be in \[0, 0\]"),
  ],
)
def test_bad_input_is_named_before_anything_is_written(tmp_path, options, message):
  with pytest.raises(ValueError, match=message):
    fit(tmp_path / "run", Small(), images(), **{**QUICK, "steps": 2, **options})
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("workdir", ["gs://bucket/run", "runs/[1]", "a\\b"])
def test_a_folder_that_could_not_be_read_again_is_refused(workdir):
  with pytest.raises(ValueError, match="workdir must"):
    fit(workdir, Small(), images(), steps=1, **QUICK)
