import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ddim_jax
from ddim_jax import training
from ddim_jax.schedules import coefficients

SCHEDULE = ddim_jax.linear_schedule()
KEY = jax.random.key(0)
adam_mixes_dtypes = jax.numpy_dtype_promotion("standard")
"""optax's bias correction raises a float to an integer power."""
IMAGES = jax.random.normal(KEY, (8, 8, 8, 1))
LABELS = jnp.arange(8)
SGD = optax.sgd(0.1)
MODEL = ddim_jax.UNet(
  channels=16,
  multipliers=(1,),
  blocks=1,
  attention=(),
  dropout=0.2,
  out_channels=1,
  groups=8,
  num_classes=8,
  middle_attention=False,
)


def network(params, x_t, t, labels, keys):
  return MODEL.apply({"params": params}, x_t, t, labels, train=True, keys=keys)


@pytest.fixture(scope="module")
def params():
  return jax.jit(MODEL.init)(KEY, IMAGES, 5)["params"]


def make_step(optimizer, axis_name=None):
  levels = training.antithetic_levels(1000)
  losses = training.example_losses(network, SCHEDULE)
  return training.make_train_step(losses, levels, optimizer, training.warm_decay(0.9), axis_name=axis_name)


@pytest.fixture(scope="module")
def undivided(params):
  """One step of SGD, where a gradient summed instead of averaged would show, on one device."""
  state = training.create_state(params, SGD)
  return state, *jax.jit(make_step(SGD))(state, KEY, IMAGES, LABELS)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [pytest.param(2, marks=pytest.mark.slow), 4])
def test_same_loss_and_gradients_on_any_number_of_devices(undivided, devices):
  """With dropout, labels and antithetic levels."""
  state, expected, metrics = undivided
  step = jax.pmap(
    make_step(SGD, "d"),
    "d",
    in_axes=(None, None, 0, 0),
    out_axes=(None, None),
    devices=jax.devices()[:devices],
  )
  split = lambda x: x.reshape(devices, -1, *x.shape[1:])
  got, got_metrics = step(state, KEY, split(IMAGES), split(LABELS))
  chex.assert_trees_all_close(got.params, expected.params, atol=2e-7)
  chex.assert_trees_all_close(got_metrics, metrics, rtol=1e-5)


@pytest.mark.slow
def test_shard_map_gives_the_same(undivided):
  state, expected, _ = undivided
  spec = jax.sharding.PartitionSpec
  step = jax.shard_map(
    make_step(SGD, "d"),
    mesh=jax.make_mesh((4,), ("d",), axis_types=(jax.sharding.AxisType.Auto,)),
    in_specs=(spec(), spec(), spec("d"), spec("d")),
    out_specs=spec(),
    check_vma=False,
  )
  got, _ = jax.jit(step)(state, KEY, IMAGES, LABELS)
  chex.assert_trees_all_close(got.params, expected.params, atol=2e-7)


def test_a_step_is_its_equation():
  """A linear network, one example: loss, gradient, SGD and average by hand."""
  optimizer = optax.sgd(0.5)
  losses = training.example_losses(lambda w, x, t, labels, keys: w * x, SCHEDULE)
  step = training.make_train_step(
    losses, lambda key, index: jnp.array(300), optimizer, training.warm_decay(0.9999)
  )
  x0 = jnp.array([[0.3, -0.7, 0.2]])
  state = training.create_state(jnp.array(0.2), optimizer)
  new, metrics = step(state, KEY, x0, jnp.zeros(1, int))
  # The noise is not returned; it is found again from the loss at two other weights.
  values = [
    float(step(state.replace(params=jnp.array(w)), KEY, x0, LABELS[:1])[1]["loss"]) for w in (0.0, 1.0)
  ]
  mean_eps2 = values[0]
  at = lambda w: values[0] + w * b + w**2 * a  # |w x - eps|^2 is quadratic in w
  half = float(step(state.replace(params=jnp.array(0.5)), KEY, x0, LABELS[:1])[1]["loss"])
  a = 2 * (values[1] - values[0]) - 4 * (half - values[0])
  b = values[1] - values[0] - a
  assert 0 < mean_eps2 < 10
  assert float(metrics["loss"]) == pytest.approx(at(0.2), rel=1e-4)
  gradient = b + 2 * 0.2 * a
  assert float(metrics["grad_norm"]) == pytest.approx(abs(gradient), rel=1e-3)
  assert float(new.params) == pytest.approx(0.2 - 0.5 * gradient, rel=1e-4)
  assert float(new.ema) == pytest.approx(
    0.1 * 0.2 + 0.9 * float(new.params), rel=1e-4
  )  # decay 1/10 at step 0


def test_the_perfect_network_has_no_loss_and_the_zero_network_a_loss_of_one():
  eps_of = lambda w, x, t, labels, keys: w * x
  levels = lambda t: jnp.full(4000, t)
  keys = jax.random.split(KEY, 4000)
  x0 = jnp.zeros((4000, 4))
  for parameterisation in (ddim_jax.EPS, ddim_jax.V):
    losses = training.example_losses(eps_of, SCHEDULE, parameterisation)
    assert float(losses(0.0, keys, x0, None, levels(999)).mean()) == pytest.approx(
      float(coefficients(SCHEDULE, 999, jnp.ones(()))[0]) ** 2 if parameterisation is ddim_jax.V else 1,
      rel=0.05,
    )
  sigma = float(SCHEDULE.sigma[500])
  perfect = training.example_losses(eps_of, SCHEDULE)
  assert float(perfect(1 / sigma, keys, x0, None, levels(500)).max()) < 1e-10


@pytest.mark.parametrize("weighting", [training.min_snr(5.0), training.p2(1.0, 1.0), training.variational()])
def test_weighted_losses_are_the_same_whatever_the_network_predicts(weighting):
  """The weight is of the error in x0: networks that agree on x0 have the same loss."""
  x0 = jnp.array([0.5, -0.5, 0.1])
  guess = jnp.array([[0.4, -0.3, 0.3]])

  def speaks(parameterisation):
    def says(params, x_t, t, labels, keys):
      alpha, sigma = coefficients(SCHEDULE, t, x_t)
      return parameterisation.target(guess, (x_t - alpha * guess) / sigma, alpha, sigma)

    return training.example_losses(says, SCHEDULE, parameterisation, weighting)

  for t in (2, 100, 500, 900):
    weight = float(weighting(SCHEDULE, t, x0[None]).squeeze())
    expected = weight * float(jnp.mean((guess[0] - x0) ** 2))
    for parameterisation in (ddim_jax.EPS, ddim_jax.X0, ddim_jax.V):
      (got,) = speaks(parameterisation)(None, KEY[None], x0[None], None, jnp.array([t]))
      assert float(got) == pytest.approx(expected, rel=2e-3)


def test_weights_are_their_papers():
  like = jnp.ones((1, 1))
  betas = np.linspace(1e-4, 0.02, 1000)
  bars = np.cumprod(1 - betas)
  for t in (1, 2, 100, 1000):
    bar, beta, snr = bars[t - 1], betas[t - 1], bars[t - 1] / (1 - bars[t - 1])
    at = lambda weighting, t=t: float(weighting(SCHEDULE, t, like).squeeze())
    assert at(training.min_snr(5.0)) / snr == pytest.approx(min(snr, 5) / snr, rel=1e-4)
    assert at(training.p2(0.5, 2.0)) / snr == pytest.approx((2 + snr) ** -0.5, rel=1e-4)
    ddpm = beta**2 / (2 * beta * (1 - beta) * (1 - bar))  # equation (12) with sigma^2 = beta
    assert at(training.variational()) / snr == pytest.approx(ddpm, rel=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize("factory", [ddim_jax.linear_schedule, ddim_jax.jsd_schedule])
def test_weights_and_losses_are_finite_at_every_level(factory):
  schedule = factory(10)
  for weighting in (None, training.min_snr(), training.p2(), training.variational()):
    for parameterisation in (ddim_jax.EPS, ddim_jax.X0, ddim_jax.V):
      if parameterisation is ddim_jax.EPS and factory is ddim_jax.jsd_schedule:
        continue  # it ends in noise alone, which is refused
      losses = training.example_losses(lambda w, x, *_: w * x, schedule, parameterisation, weighting)
      one = lambda w, t, losses=losses: losses(w, KEY[None], jnp.ones((1, 3)), None, t)[0]
      for t in range(1, 11):
        chex.assert_tree_all_finite(jax.value_and_grad(one)(0.5, jnp.array([t])))


def test_levels():
  index = jnp.arange(4000)
  for levels in (training.uniform_levels(10), training.antithetic_levels(10)):
    t = np.asarray(jax.vmap(levels, (None, 0))(KEY, index))
    counts = np.bincount(t, minlength=11)
    assert counts[0] == 0
    assert len(counts) == 11
    assert np.all(np.abs(counts[1:] - 400) < 5 * 20)
  np.testing.assert_array_equal(t[::2] + t[1::2], 11)


@pytest.mark.slow
@adam_mixes_dtypes
def test_an_update_that_is_not_finite_is_left_out(params):
  optimizer = training.warmed_up(optax.adam, warmup=0)
  step = jax.jit(make_step(optimizer))
  state = training.create_state(params, optimizer)
  after, metrics = step(state, KEY, IMAGES.at[0, 0, 0, 0].set(jnp.nan), LABELS)
  assert np.isnan(metrics["loss"])
  assert int(after.skipped) == int(metrics["skipped"]) == 1
  assert int(after.step) == 1
  for name in ("params", "ema", "opt_state"):
    chex.assert_trees_all_equal(getattr(after, name), getattr(state, name))
  again, metrics = step(after, KEY, IMAGES, LABELS)
  assert np.isfinite(metrics["loss"])
  assert int(again.skipped) == 1


@pytest.mark.slow
def test_an_update_that_overflows_is_left_out(params):
  optimizer = optax.chain(optax.sgd(1e38), optax.scale(1e3))
  state = training.create_state(params, optimizer)
  after, metrics = jax.jit(make_step(optimizer))(state, KEY, IMAGES, LABELS)
  assert np.isfinite(metrics["loss"])
  assert int(after.skipped) == 1
  chex.assert_trees_all_equal(after.params, state.params)


@adam_mixes_dtypes
def test_warm_up_of_learning_rate_and_average():
  rates = [float(training.warm_decay(0.999)(jnp.array(n))) for n in (0, 10, 10**6)]
  assert rates == pytest.approx([0.1, 0.55, 0.999])
  optimizer = training.warmed_up(optax.adam, 1.0, warmup=10, clip=1e9)
  state, sizes = optimizer.init(jnp.zeros(())), []
  for _ in range(12):
    update, state = optimizer.update(jnp.ones(()), state)
    sizes.append(-float(update))
  assert sizes == pytest.approx([*np.arange(10) / 10, 1, 1], rel=1e-3)


@adam_mixes_dtypes
def test_gradients_are_clipped_to_a_global_norm():
  optimizer = training.warmed_up(optax.adam, 1.0, 0, clip=1.0)
  params = {"a": jnp.zeros(3), "b": jnp.zeros(4)}
  state = optimizer.init(params)
  big = jax.tree.map(lambda p: 100 * jnp.ones_like(p), params)
  _, state = optimizer.update(big, state)
  mu = [leaf for leaf in jax.tree.leaves(state) if leaf.ndim == 1][:2]
  assert float(optax.tree.norm(mu)) == pytest.approx(0.1, rel=1e-5)  # (1 - 0.9) times a norm of 1


def test_state_has_no_shared_buffers(params):
  state = training.create_state(params, training.warmed_up(optax.adam))
  addresses = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(state)]
  assert len(addresses) == len(set(addresses))


def test_several_averages_are_those_of_runs_with_their_decays():
  """Three steps, each average against the recursion by hand on the parameters that came out."""
  loss = lambda w, key, x0, label, t: jnp.mean((w - x0) ** 2)
  decays = [lambda step: 0.25, lambda step: 0.0]
  step = training.make_train_step(loss, lambda key, index: jnp.array(3), SGD, lambda step: 0.5, decays=decays)
  state = training.create_state(jnp.array(4.0), SGD, emas=2)
  expected = [4.0, 4.0, 4.0]
  for _ in range(3):
    state, _ = jax.jit(step)(state, KEY, jnp.ones((2, 1)), LABELS[:2])
    expected = [
      d * old + (1 - d) * float(state.params) for d, old in zip((0.5, 0.25, 0), expected, strict=True)
    ]
  np.testing.assert_allclose([state.ema, *state.emas], expected, rtol=1e-6)
  assert expected[0] > expected[1] > expected[2]  # nearer to the start, the longer the memory


@pytest.mark.parametrize("devices", [1, 4])
def test_losses_by_level(devices):
  """An example's loss is its image here, and its level its place in the batch."""
  losses = lambda w, keys, x0, labels, t: x0[:, 0] + 0 * w
  step = training.make_train_step(
    losses, lambda key, index: index + 1, SGD, lambda step: 0.5, level_edges=(3, 4, 100), axis_name="d"
  )
  images = jnp.arange(8.0).at[7].set(jnp.inf).reshape(devices, -1, 1)
  state = training.create_state(jnp.array(1.0), SGD)
  mapped = jax.pmap(
    step, "d", in_axes=(None, None, 0, 0), out_axes=(None, None), devices=jax.devices()[:devices]
  )
  _, metrics = mapped(state, KEY, images, LABELS.reshape(devices, -1))
  np.testing.assert_array_equal(metrics["level_losses"], [0 + 1, 2, np.inf, 0])
  np.testing.assert_array_equal(metrics["level_counts"], [2, 1, 5, 0])


def test_learning_rates_fall_as_said():
  """Against the formulas at points where they are known, and without a jump where the warm-up ends."""
  cosine = training.cosine_rate(0.5, 10, steps=30)
  rates = [cosine(n) for n in (0, 5, 10, 15, 20, 30)]
  np.testing.assert_allclose(rates, [0, 0.25, 0.5, 0.25 + 0.25 / 2**0.5, 0.25, 0], atol=1e-7)
  falling = training.inverse_sqrt_rate(0.5, 10)
  np.testing.assert_allclose(
    [falling(n) for n in (0, 5, 10, 40, 1000)], [0, 0.25, 0.5, 0.25, 0.05], rtol=1e-6
  )
  with pytest.raises(ValueError, match=r"warmup must be below the 10 steps .* got 10"):
    training.cosine_rate(0.5, 10, steps=10)
  with pytest.raises(ValueError, match=r"warmup must be positive .* got 0"):
    training.inverse_sqrt_rate(0.5, 0)
