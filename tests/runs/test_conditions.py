"""Conditions: a vector for each image, in networks, in training, in what is saved and drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ddim_jax
from ddim_jax import data, interop, models
from ddim_jax.runs import fit, objective
from tests.helpers import random_variables

pytestmark = pytest.mark.usefixtures("promotion")

SHAPE = (4, 4, 1)
QUICK = {"batch_size": 8, "warmup": 0, "progress": False, "sample_every": 0}


def unet(num_classes=3):
  return ddim_jax.UNet(
    channels=4, multipliers=(1,), blocks=1, attention=(), groups=2, out_channels=1,
    num_classes=num_classes, condition_size=2,
  )  # fmt: skip


@pytest.fixture(scope="module")
def model():
  """A U-Net of random weights with classes and conditions of mean 40 and deviation 10."""
  variables = random_variables(unet(), (2, *SHAPE))
  conditions = data.Scaling("float32", (40.0, 40.0), (10.0, 10.0), False)
  return models.from_network(
    unet(), SHAPE, params=variables["params"], classes=("a", "b", "c"), conditions=conditions
  )


@pytest.mark.slow
def test_the_output_depends_on_the_condition_and_nan_is_none(model):
  x, c = jnp.ones((2, *SHAPE)), jnp.array([[1.0, 2.0], [1.0, 2.0]])
  apply = jax.jit(lambda c: unet().apply({"params": model.params}, x, 5, jnp.array([0, 1]), conditions=c))
  out, none = apply(c), apply(None)
  for changed in (c.at[0, 0].add(1), c.at[0, 1].add(1)):
    assert np.abs(apply(changed)[0] - out[0]).max() > 1e-3
    np.testing.assert_array_equal(apply(changed)[1], out[1])  # of another image
  hidden = apply(c.at[1].set(jnp.nan))
  np.testing.assert_array_equal(hidden[0], out[0])
  np.testing.assert_array_equal(hidden[1], none[1])
  assert np.abs(out - none).max() > 1e-3
  moved = {**model.params, "no_condition": model.params["no_condition"] + 1}
  assert np.abs(unet().apply({"params": moved}, x, 5, jnp.array([0, 1])) - none).max() > 1e-3


def test_a_unet_refuses_what_does_not_fit(model):
  x, labels = jnp.ones((2, *SHAPE)), jnp.array([0, 1])
  with pytest.raises(ValueError, match=r"conditions must be \[2, 2\], got \(2, 3\)"):
    unet().apply({"params": model.params}, x, 5, labels, conditions=jnp.ones((2, 3)))
  with pytest.raises(ValueError, match="without condition_size"):
    unet().clone(condition_size=None).apply(
      {"params": model.params}, x, 5, labels, conditions=jnp.ones((2, 3))
    )
  with pytest.raises(ValueError, match="a UNet2DModel cannot have conditions"):
    interop.from_ours(unet(), {}, model.schedule, model.parameterisation, size=4)


@pytest.mark.slow
def test_guidance_leads_away_from_no_class_and_no_condition(model):
  x, t = jnp.ones((2, *SHAPE)), jnp.int32(700)
  one = lambda **options: model.denoiser(clip=False, **options)(x, t).eps
  both, none = one(label="b", condition=[30, 55]), one()
  guided = one(label="b", condition=[30, 55], guidance=3.0)
  np.testing.assert_allclose(guided, none + 3 * (both - none), rtol=1e-4, atol=1e-5)
  standard = model.replace(conditions=data.Scaling("float32", (0.0, 0.0), (1.0, 1.0), False))
  same = standard.denoiser(label="b", condition=[-1, 1.5], clip=False)(x, t).eps  # (30 - 40) / 10
  np.testing.assert_allclose(same, both, rtol=1e-6)
  each = one(label="b", condition=[[30, 55], [40, 40]])
  np.testing.assert_allclose(each[0], both[0], rtol=1e-5)
  assert np.abs(each[1] - both[1]).max() > 1e-3


@pytest.mark.slow
def test_a_file_keeps_how_conditions_are_scaled(model, tmp_path):
  model.save(tmp_path / "m.safetensors", half=False)
  loaded = ddim_jax.load(tmp_path / "m.safetensors")
  assert (loaded.conditions, loaded.network) == (model.conditions, model.network)
  draw = lambda model, condition: model.sample(2, steps=2, label="a", condition=condition)
  ours = draw(model, [30, 55])
  np.testing.assert_array_equal(draw(loaded, [30, 55]), ours)
  assert np.abs(draw(model, [45, 20]) - ours).max() > 1e-3
  np.testing.assert_allclose(draw(model, [[45, 20], [30, 55]])[1], ours[1], atol=1e-6)


@pytest.mark.parametrize(
  ("condition", "message"),
  [
    ([1], r"condition must be \[2\] or \[B, the same\], got \(1,\)"),
    ([1, np.nan], "condition must be finite"),
    ([[1, 2]] * 3, "condition must be one vector or one for each of 2, got 3"),
  ],
)
def test_conditions_that_do_not_fit_are_refused(model, condition, message):
  with pytest.raises(ValueError, match=message):
    model.sample(2, steps=2, condition=condition)
  with pytest.raises(ValueError, match="condition needs a model that was trained with conditions"):
    model.replace(conditions=None).vectors([1, 2])


def test_what_is_hidden_in_training(model):
  number, rate = 4000, 0.4
  keys = jax.random.split(jax.random.key(0), number)
  given = objective.Given(jnp.zeros(number, jnp.int32), jnp.full((number, 2), 50.0))
  labels, conditions = jax.jit(lambda given: objective.hide(given, keys, model, rate))(given)
  no_label, no_condition = np.asarray(labels == 3), np.isnan(conditions).all(axis=1)
  assert set(np.asarray(labels)[~no_label]) == {0}
  np.testing.assert_allclose(conditions[~no_condition], 1)  # (50 - 40) / 10
  shares = [np.mean(x) for x in (no_label & no_condition, no_label & ~no_condition, no_condition & ~no_label)]
  np.testing.assert_allclose(shares, [rate / 2, rate / 4, rate / 4], atol=5 * 0.5 / number**0.5)
  alone, _ = objective.hide(given.labels, keys, model.replace(conditions=None), rate)
  np.testing.assert_allclose(np.mean(alone == 3), rate, atol=5 * 0.5 / number**0.5)


def brightness():
  """Images of one brightness, which the condition says in numbers of its own: 100 * brightness + 500."""
  value = np.random.default_rng(0).uniform(-0.8, 0.8, 64).astype(np.float32)
  return np.ones((64, *SHAPE), np.float32) * value[:, None, None, None], 100 * value[:, None] + 500


def linear():
  """``(init, apply)`` of a network that knows its condition alone."""
  return (
    lambda key, x, t, conditions: {"weight": jnp.zeros(conditions.shape[1]), "bias": jnp.zeros(())},
    lambda params, x, t, conditions: (
      jnp.zeros_like(x) + (params["bias"] + conditions @ params["weight"])[:, None, None, None]
    ),
  )


@pytest.mark.slow
def test_a_run_learns_what_its_condition_says(tmp_path):
  images, conditions = brightness()
  start = models.from_network(linear(), SHAPE, conditions=1, parameterisation=ddim_jax.X0)
  options = QUICK | {"batch_size": 64, "learning_rate": 0.05, "ema": 0.5, "label_dropout": 0.2, "steps": 150}
  trained = fit(tmp_path, start, images, conditions=conditions, **options)
  assert trained.conditions.offset == pytest.approx(tuple(conditions.mean(axis=0)), rel=1e-5)
  drawn = trained.sample(3, steps=3, condition=[[440], [500], [570]]).mean(axis=(1, 2, 3))
  np.testing.assert_allclose(drawn, [-0.6, 0, 0.7], atol=0.03)
  # Its best weight is that of conditions of which a fifth is hidden, as zeros: the same line.
  again = ddim_jax.load(tmp_path, like=start)
  assert again.conditions == trained.conditions
  same = again.sample(3, steps=3, condition=[[440], [500], [570]]).mean(axis=(1, 2, 3))
  np.testing.assert_array_equal(same, drawn)


def test_one_without_the_other_is_refused(tmp_path):
  images, conditions = brightness()
  network = lambda params, x, t, *given: x
  for options, takes, message in (
    (
      {"conditions": conditions},
      None,
      "have conditions of 1 numbers, the model takes no conditions",
    ),
    ({}, 2, "the data have no conditions, the model takes conditions of 2 numbers"),
    ({"conditions": conditions * 0}, 1, "conditions cannot be used: channel 0 is constant"),
  ):
    start = models.from_network(network, SHAPE, params={"a": np.zeros(1)}, conditions=takes)
    with pytest.raises(ValueError, match=message):
      fit(tmp_path / "run", start, images, steps=1, **options, **QUICK)
