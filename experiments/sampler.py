"""From a checkpoint to a function that draws images by number."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import ddim_jax
from ddim_jax import data, interop
from experiments import build, origins
from experiments import config as configs

SolverName = Literal[
  "ddim", "ddpm", "ddpm-large", "dpmpp-2m", "dpmpp-3m", "dpmpp-2s", "dpmpp-2m-sde", "unipc2", "unipc3",
  "deis2", "deis3", "heun", "plms", "pndm",
]  # fmt: skip
SOLVERS: dict[SolverName, Callable[[Any], ddim_jax.Solver]] = {
  "ddim": ddim_jax.ddim,
  "ddpm": lambda eta: ddim_jax.ddpm("small"),
  "ddpm-large": lambda eta: ddim_jax.ddpm("large"),
  "dpmpp-2m": lambda eta: ddim_jax.dpm_solver_pp(2),
  "dpmpp-3m": lambda eta: ddim_jax.dpm_solver_pp(3),
  "dpmpp-2s": lambda eta: ddim_jax.dpm_solver_pp_2s(),
  "dpmpp-2m-sde": lambda eta: ddim_jax.dpm_solver_pp(2, eta=1.0),
  "unipc2": lambda eta: ddim_jax.unipc(2),
  "unipc3": lambda eta: ddim_jax.unipc(3),
  "deis2": lambda eta: ddim_jax.deis(2),
  "deis3": lambda eta: ddim_jax.deis(3),
  "heun": lambda eta: ddim_jax.heun(),
  "plms": lambda eta: ddim_jax.plms(),
  "pndm": lambda eta: ddim_jax.pndm(),
}


Draw = Callable[..., np.ndarray]
"""``(indices: i32[size], eta=0.0, params=the trained ones) -> u8[size, H, W, C]``."""


class Trained(NamedTuple):
  """A model with its averaged weights.

  Attributes:
    step: Updates behind it.
    config: Configuration of the run.
    model: The network.
    params: Averaged parameters, numpy.
    schedule: Noise schedule.
    shape: ``(H, W, C)`` of its images.
    classes: Names of the classes it is conditioned on; empty if it is not.
  """

  step: int
  config: configs.Config
  model: ddim_jax.UNet
  params: Any
  schedule: ddim_jax.Schedule
  shape: tuple[int, int, int]
  classes: tuple[str, ...]

  @property
  def description(self) -> dict[str, Any]:
    """What `models.write` keeps beside the weights."""
    config = configs.to_json(self.config)
    config["data"]["data_dir"] = None  # a place on this machine
    return {
      "step": self.step, "config": config, "image": list(self.shape),
      "classes": list(self.classes),
    }  # fmt: skip


def load(
  source: Path,
  step: int | None = None,
  ema: float | None = None,
  size: int | None = None,
  data_set: str | None = None,
) -> Trained:
  """Reads a model; nothing else is needed.

  Args:
    source: See `origins.read`; so are ``step``, ``ema`` and ``size``.
    step: Checkpoint of a run.
    ema: Decay of the average.
    size: Height of the images.
    data_set: What to compare with instead of what it was trained on, as --data of ``experiments.train``.
  """
  description, params = origins.read(source, step, ema, size)
  trained = assemble(int(description["step"]), description, params)
  if data_set is None:
    return trained
  return trained._replace(config=dataclasses.replace(trained.config, data=configs.Data(data_set)))


def assemble(step: int, description: dict[str, Any], params) -> Trained:
  """The model that a checkpoint's or a file's description stands for, with these parameters."""
  config = configs.from_json(description["config"])
  height, width, channels = description["image"]
  classes = tuple(description["classes"])
  model = build.model(config, channels, len(classes))
  return Trained(
    step=step,
    config=config,
    model=model,
    params=params,
    schedule=build.schedule(config),
    shape=(height, width, channels),
    classes=() if model.num_classes is None else classes,
  )


def levels(trained: Trained, spacing: build.AnySpacing | None, steps: int) -> np.ndarray:
  """The levels of S steps; without a spacing, that of the model's own files, or uniform."""
  if spacing is None and trained.config.imported is not None:
    return interop.describe(**trained.config.imported).timesteps(steps)
  return build.timesteps(spacing or "uniform", trained.schedule, steps)


def denoiser(trained: Trained, params, schedule, labels=None, guidance=None, clip: bool = False):
  """The trained network as a denoiser; its parameters may be traced.

  Args:
    trained: From `load`.
    params: ``trained.params``, or their traced form.
    schedule: ``trained.schedule``, or its traced form.
    labels: ``i32[B]`` or None.
    guidance: Weight of classifier-free guidance, or None for the plain conditional model.
    clip: Clip predicted images to [-1, 1], or as an imported network's files say.
  """
  predict = build.parameterisation(trained.config)
  null = build.null_label(trained.model, len(trained.classes))

  def with_labels(labels):
    network = lambda x, t: trained.model.apply({"params": params}, x, t, labels_of(x, labels))
    return ddim_jax.as_denoiser(network, schedule, predict)

  def labels_of(x, labels):
    return jnp.full(x.shape[:1], null) if labels is None and null is not None else labels

  denoise = with_labels(labels)
  if guidance is not None:
    if null is None:
      raise ValueError("--guidance needs a network that was also trained without labels; this one was not")
    denoise = ddim_jax.guide(denoise, with_labels(None), schedule, guidance)
  if not clip:
    return denoise
  if trained.config.imported is not None:
    return interop.describe(**trained.config.imported).restrict(denoise, schedule)
  return ddim_jax.clip_x0(denoise, schedule)


def results_folder(workdir: Path) -> Path:
  """Where pictures go that --out does not name: into the run's folder, or here if the model is no run."""
  return workdir if (workdir / "checkpoints").is_dir() else Path()


def test_source(trained: Trained) -> data.Source:
  """The data set that the model was trained on, its test split where it has one."""
  split = "test" if trained.config.data.data in ("cifar10", "fashion_mnist") else None
  return build.source(trained.config.data, split)


def real_images(trained: Trained, num: int, first: int = 0) -> tuple[np.ndarray, np.ndarray]:
  """Images of the data set that the model was trained on, from its test split where it has one.

  Returns:
    ``(u8[num, H, W, C], labels: i32[num])``; fewer where the data set is smaller.
  """
  source = test_source(trained)
  images, labels = source.read(np.arange(first, min(first + num, source.size)))
  return images, np.asarray(labels, np.int32)


def by_example(count: int) -> jax.sharding.NamedSharding:
  """So many examples over as many of the local devices as can share them evenly, along the first axis.

  A jitted function of an array laid out so runs on these devices, each with its part of the examples.
  """
  devices = jax.local_devices()
  used = max(n for n in range(1, len(devices) + 1) if count % n == 0)
  mesh = jax.sharding.Mesh(np.asarray(devices[:used]), ("examples",))
  return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("examples"))


def everywhere(sharing: jax.sharding.NamedSharding) -> jax.sharding.NamedSharding:
  """A copy on each of the devices that share examples: for weights."""
  return jax.sharding.NamedSharding(sharing.mesh, jax.sharding.PartitionSpec())


def on_devices(images: np.ndarray) -> jax.Array:
  """``u8[B, H, W, C]`` as data in [-1, 1], laid out `by_example`."""
  return jax.device_put(data.from_uint8(images), by_example(len(images)))


def numbered_images(
  trained: Trained,
  ts: np.ndarray,
  *,
  solver: SolverName = "ddim",
  seed: int = 0,
  label: int | None = None,
  guidance: float | None = None,
  clip: bool = True,
  at_once: int = 64,
) -> tuple[int, Draw]:
  """A sampler over all local devices.

  Args:
    trained: From `load`.
    ts: Levels to visit.
    solver: A key of `SOLVERS`.
    seed: With an image's index, decides the image.
    label: Class of every image; None takes the index modulo the number of classes.
    guidance: Weight of classifier-free guidance, or None.
    clip: Clip predicted images to [-1, 1].
    at_once: Images wanted at a time, rounded up to a multiple of the devices.

  Returns:
    ``(size, draw)``. Image i depends on the seed and i alone, not on the other indices, the size or
    the number of devices.
  """
  devices = jax.local_device_count()
  per_device = -(-at_once // devices)
  classes = len(trained.classes)

  def sample(params, schedule, key, eta, guidance, ts, indices):
    keys = ddim_jax.image_keys(key, indices)
    noise = ddim_jax.initial_noise(keys, (indices.shape[0], *trained.shape))
    labels = None
    if classes:
      labels = indices % classes if label is None else jnp.full_like(indices, label)
    denoise = denoiser(trained, params, schedule, labels, guidance, clip)
    return ddim_jax.sample(keys, denoise, schedule, noise, ts, solver=SOLVERS[solver](eta))[0]

  mapped = jax.pmap(sample, in_axes=(None, None, None, None, None, None, 0))
  params = jax.device_put(trained.params)
  key = jax.random.key(seed)

  def draw(indices: np.ndarray, eta: float = 0.0, params=params) -> np.ndarray:
    split = np.asarray(indices, np.int32).reshape(devices, per_device)
    images = mapped(params, trained.schedule, key, eta, guidance, ts, split)
    return data.to_uint8(images).reshape(-1, *trained.shape)

  return devices * per_device, draw
