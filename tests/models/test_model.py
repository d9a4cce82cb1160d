"""A trained model: loaded, drawn from, saved; and files of before this package had a `Model`."""

import tarfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import ddim_jax
from ddim_jax import checkpoints, data, interop, models
from ddim_jax.models import build
from ddim_jax.packing import Packed, unpack
from ddim_jax.runs import objective
from ddim_jax.runs.start import start

SHAPE = (4, 4, 1)


@pytest.fixture(scope="module")
def old(tmp_path_factory):
  """A run of three steps, its exported file, and images drawn from it, by programs without a `Model`."""
  folder = tmp_path_factory.mktemp("old")
  with tarfile.open(Path(__file__).with_name("old_run.tar.gz")) as archive:
    archive.extractall(folder, filter="data")
  return folder / "run"


def drawn(old, name):
  return np.load(old / f"{name}.npz")["arr_0"].astype(int)


@pytest.mark.slow
def test_a_run_of_before_draws_what_it_drew(old):
  model = ddim_jax.load(old)
  assert (model.shape, model.step, len(model.classes)) == ((8, 8, 1), 3, 10)
  guided = data.to_uint8(model.sample(4, steps=5, guidance=2.0))
  assert np.abs(guided - drawn(old, "guided")).max() <= 1  # a unit of rounding
  fast = ddim_jax.load(old, ema=0.5)
  images = data.to_uint8(fast.sample(4, steps=5, eta=0.5, label="3"))
  assert np.abs(images - drawn(old, "fast_ema")).max() <= 1
  with pytest.raises(ValueError, match=r"ema must be one of \[0.5, 0.9"):
    ddim_jax.load(old, ema=0.1)
  rounded = ddim_jax.load(old / "exported.safetensors")
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=2**-11, atol=2**-25), rounded.params, model.params
  )


@pytest.mark.slow
@pytest.mark.parametrize("packed", [True, False])
def test_a_run_of_before_goes_on_as_it_was_saved(old, packed):
  """Every array of its checkpoint, as vectors or as a tree."""
  model, saved = ddim_jax.load(old), checkpoints.restore_latest(old / "checkpoints")
  optimizer = objective.optimizer(optax.adam, 2e-3, 50, 1.0)
  state = start(model, optimizer, emas=1, packed=packed, saved=saved)
  assert isinstance(state.params, Packed) == packed
  assert int(state.step) == 3
  arrays = checkpoints.flatten(unpack(state))
  assert arrays.keys() == saved.arrays.keys()
  for name, array in arrays.items():
    np.testing.assert_array_equal(array, saved.arrays[name])


@pytest.fixture
def counting():
  """A function as the network, and a list of its calls: inside jit, each is a trace."""
  calls: list = []

  def scaled(params, x, t, labels):
    calls.append(x.shape)
    wave = jnp.sin(t.astype(jnp.float32))
    return x * params["scale"][labels][:, None, None, None] + wave[:, None, None, None]

  classes = tuple(f"class {i}" for i in range(10))
  params = {"scale": np.linspace(0.1, 0.9, 11, dtype=np.float32)}
  return models.from_network(scaled, SHAPE, params=params, classes=classes).replace(null_label=10), calls


def test_nothing_compiles_again_for_other_values(counting):
  model, calls = counting
  first = model.sample(4, steps=5)
  traced = len(calls)
  assert traced
  for options in (
    {"steps": 7},
    {"steps": 40, "eta": 0.3},
    {"seed": 3},
    {"label": 2},
    {"label": ["class 1"] * 4},
  ):
    assert model.sample(4, **{"steps": 5, **options}).shape == (4, *SHAPE)
  assert len(calls) == traced
  model.sample(4, steps=5, guidance=3)
  guided = len(calls)
  assert guided > traced
  model.sample(4, steps=9, guidance=1.5, eta=1.0, label="class 7")
  assert len(calls) == guided
  np.testing.assert_array_equal(first, model.sample(4, steps=5))


def test_image_i_does_not_depend_on_how_many(counting):
  model, _ = counting
  whole = model.sample(11, steps=4, eta=1.0, label=[i % 10 for i in range(11)])
  np.testing.assert_allclose(model.sample(3, steps=4, eta=1.0), whole[:3], atol=1e-6)
  np.testing.assert_allclose(model.sample(11, steps=4, eta=1.0, batch_size=1), whole, atol=1e-6)
  assert len(np.unique(whole.reshape(11, -1), axis=0)) == 11


def test_sample_is_the_librarys_sample(counting):
  """Against the pieces put together by hand, with another solver and spacing."""
  model, _ = counting
  images = model.sample(3, steps=6, solver="unipc2", spacing="trailing", label=[1, 2, 3], seed=5)
  keys = ddim_jax.image_keys(jax.random.key(5), np.arange(3))
  params = jax.tree.map(jnp.asarray, model.params)
  network = lambda x, t: model.adapted.apply(params, x, t, jnp.array([1, 2, 3]))
  denoise = ddim_jax.clip_x0(ddim_jax.as_denoiser(network, model.schedule), model.schedule)
  ts, x_T = ddim_jax.timesteps.trailing(1000, 6), ddim_jax.initial_noise(keys, (3, *SHAPE))
  by_hand = jax.jit(
    lambda x: ddim_jax.sample(keys, denoise, model.schedule, x, ts, solver=ddim_jax.unipc(2))[0]
  )
  np.testing.assert_allclose(images, by_hand(x_T), atol=1e-5)
  solver = ddim_jax.unipc(2)
  again = model.sample(3, steps=6, solver=solver, spacing="trailing", label=[1, 2, 3], seed=5)
  np.testing.assert_allclose(images, again, atol=1e-6)


def test_the_denoiser_works_under_jit_vmap_and_grad(counting):
  model, _ = counting
  x, t = jnp.ones((2, *SHAPE), jnp.float32), jnp.int32(500)
  plain = model.denoiser(label="class 4", clip=False)(x, t)
  jitted = jax.jit(lambda model, x: model.denoiser(label=4, clip=False)(x, t))(model, x)
  np.testing.assert_allclose(plain.x0, jitted.x0, rtol=1e-6)
  each = jax.vmap(lambda x: model.denoiser(label=4, clip=False)(x[None], t).x0[0])(x)
  np.testing.assert_allclose(each, plain.x0, rtol=1e-6)
  slope = jax.grad(lambda x: model.denoiser(label=4, clip=False)(x, t).x0.sum())(x)
  alpha, sigma = (
    float(model.schedule.alpha[500]),
    float(model.schedule.sigma[500]),
  )  # x0 = (x - sigma * (x * scale + c)) / alpha
  np.testing.assert_allclose(
    slope, np.full(x.shape, (1 - sigma * model.params["scale"][4]) / alpha), rtol=1e-5
  )
  low, high = (model.denoiser(label=4, guidance=w, clip=False)(x, t).eps for w in (0.0, 2.0))
  unconditional = model.denoiser(clip=False)(x, t).eps
  np.testing.assert_allclose(low, unconditional, rtol=1e-6)
  np.testing.assert_allclose(high, 2 * plain.eps - unconditional, rtol=1e-5)


def test_inversion_leads_to_noise_that_leads_back(counting):
  model, _ = counting
  x0 = model.sample(5, steps=20, label=2)
  x_T = model.invert(x0, steps=20, refine=20, label=2)
  denoise = model.denoiser(label=2, clip=False)
  back = jax.jit(
    lambda x: ddim_jax.sample(jax.random.key(0), denoise, model.schedule, x, model.levels(20))[0]
  )
  np.testing.assert_allclose(back(x_T), x0, atol=1e-3)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"num": 0}, r"num must be an integer in \[1, .*got 0"),
    ({"steps": 1001}, "asked for 1001 steps out of 1000 levels"),
    ({"eta": 2.0}, r"eta must be in \[0, 1\], got 2.0"),
    ({"eta": 0.5, "solver": "heun"}, "eta goes with the solver ddim, got eta 0.5 with heun"),
    ({"solver": "euler"}, "solver must be one of ddim, .*got 'euler'"),
    ({"spacing": "even"}, "spacing must be one of uniform, .*got 'even'"),
    ({"label": [[0, 1]]}, r"label must be one class or a list of them, got shape \(1, 2\)"),
    ({"label": "9" * 5000}, r"label must be in \[0, 9\]"),
    ({"label": "\u0663"}, r"label must be in \[0, 9\]"),
    ({"label": 10}, r"label must be in \[0, 9\] or one of class 0, .*got 10"),
    ({"label": "cat"}, "got 'cat'"),
    ({"label": [1, 2]}, "one for each of 4 images, got 2"),
    ({"seed": 2**63}, "seed must be an integer in"),
    ({"seed": -1}, "seed must be an integer in"),
  ],
)
def test_bad_input_is_named(counting, options, message):
  with pytest.raises(ValueError, match=message):
    counting[0].sample(**{"num": 4, **options})


def test_what_an_unconditional_model_lacks():
  model = models.load("fashion_mnist")
  for options in ({"label": "Sneaker"}, {"guidance": 3.0}):
    with pytest.raises(ValueError, match=r"needs a conditional model.*fashion_mnist_classes"):
      model.sample(1, **options)
  assert "Sneaker" in models.load("fashion_mnist_classes").classes


@pytest.mark.parametrize(
  ("where", "error", "message"),
  [
    (
      "nowhere",
      FileNotFoundError,
      "no such file or folder: nowhere; models that come along: fashion_",
    ),
    ("runs/my run", FileNotFoundError, "no such file or folder: runs/my run"),
    ("nowhere.pt", FileNotFoundError, "no such file or folder"),
    ("text.txt", ValueError, "is no model"),
  ],
)
def test_what_is_not_there(tmp_path, monkeypatch, where, error, message):
  monkeypatch.chdir(tmp_path)
  Path("text.txt").write_text("")
  with pytest.raises(error, match=message):
    ddim_jax.load(where)


@pytest.mark.slow
@pytest.mark.parametrize("spread", ["named", "words of diffusers"])
def test_a_unet_of_ones_own_is_saved_and_loaded(tmp_path, spread):
  """By the names of its options, or where these do not say it all, in the words of diffusers."""
  options = {} if spread == "named" else {"scale_shift": True, "eps": 1e-5}
  unet = ddim_jax.UNet(
    channels=8, multipliers=(1,), blocks=1, attention=(), groups=4, out_channels=1, **options
  )
  schedule = ddim_jax.cosine_schedule(20)
  model = models.from_network(unet, (8, 8, 1), schedule=schedule, parameterisation=ddim_jax.V)
  generator = np.random.default_rng(0)
  params = jax.tree.map(lambda s: generator.normal(0, 0.2, s.shape).astype(np.float32), model.template())
  model = model.replace(params=params)
  x, t = jnp.ones((1, 8, 8, 1)), jnp.int32(7)
  expected = model.denoiser(clip=False)(x, t)
  for path in (tmp_path / "m.safetensors", tmp_path / "m"):
    model.save(path, half=False)
    found = ddim_jax.load(path)
    got = found.denoiser(clip=False)(x, t)
    np.testing.assert_allclose(got.x0, expected.x0, rtol=1e-4, atol=1e-5)
    assert found.shape == (8, 8, 1)
  with pytest.raises(ValueError, match=r"path must end in \.safetensors"):
    model.save(tmp_path / "m.npz")


def test_a_network_that_only_its_maker_knows_says_so(counting, tmp_path):
  model, _ = counting
  with pytest.raises(ValueError, match=r"function is not a ddim_jax\.UNet"):
    model.save(tmp_path / "folder")
  model.save(tmp_path / "m.safetensors", half=False)
  with pytest.raises(ValueError, match="scaled, is not this project's: give like"):
    ddim_jax.load(tmp_path / "m.safetensors")
  again = ddim_jax.load(tmp_path / "m.safetensors", like=model)
  np.testing.assert_array_equal(again.sample(2, steps=3), model.sample(2, steps=3))


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", ["EDMEulerScheduler", "FlowMatchEulerDiscreteScheduler"])
def test_networks_with_other_coordinates_are_given_them(tmp_path, scheduler):
  """As `interop.Pretrained` reads them, whose steps are tested against diffusers; in training, too."""
  diffusers = pytest.importorskip("diffusers")
  network = diffusers.UNet2DModel(
    sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(4,),
    norm_num_groups=2, attention_head_dim=2, down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
  )  # fmt: skip
  network.save_pretrained(tmp_path / "unet")
  getattr(diffusers, scheduler)().save_pretrained(tmp_path / "scheduler")
  model, pretrained = ddim_jax.load(tmp_path), interop.load_diffusers(tmp_path)
  x = np.random.default_rng(0).standard_normal((2, 8, 8, 1)).astype(np.float32)
  t = jnp.int32(700)
  both = [jax.jit(denoise)(x, t) for denoise in (model.denoiser(), pretrained.denoiser())]
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *both)
  x0, keys = np.zeros((2, 8, 8, 1), np.float32), jax.random.split(jax.random.key(0))
  losses = jax.jit(objective.losses(model))(model.params, keys, x0, None, jnp.array([3, 900]))
  assert np.isfinite(losses).all()


@pytest.mark.parametrize(("shape", "said"), [((4, 12, 1), [4, 12]), ((16, 16, 1), 16), ((8, 8, 1), 8)])
def test_files_for_diffusers_say_the_size_that_was_trained_on(shape, said):
  """Also where the network came from files of another size."""
  network = ddim_jax.UNet(channels=4, multipliers=(1, 2), blocks=1, attention=(), groups=2, out_channels=1)
  like = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 8, 8, 1)), jnp.int32(1))
  variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), like)
  own = interop.from_ours(network, variables, ddim_jax.linear_schedule(), ddim_jax.EPS, size=8)
  model = build.from_pretrained(own).replace(shape=shape)
  assert build.to_pretrained(model).config["sample_size"] == said
