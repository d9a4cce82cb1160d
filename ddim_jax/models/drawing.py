"""Images of a model by number, over all local devices, with one compiled program for every S."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from ddim_jax import ranges, timesteps
from ddim_jax.inversion import invert
from ddim_jax.models import tables
from ddim_jax.sampling import image_keys, initial_noise, sample
from ddim_jax.seeds import key_of
from ddim_jax.solvers import Solver

if TYPE_CHECKING:
  from ddim_jax.models.model import Model

_LEAST_LENGTH = 64
"""Levels are padded to this many steps, and beyond it to the next power of two."""

Draw = Callable[..., np.ndarray]
"""``(indices: i32[size], eta=0.0, params=the model's) -> f32[size, H, W, C]``, numpy."""


def is_guided(guidance: Any) -> bool:
  """Whether a guidance weight has an effect: anything but None and the number 1."""
  return guidance is not None and not (isinstance(guidance, (int, float)) and guidance == 1)


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
  from ddim_jax import data  # it needs Pillow, which drawing does not

  placed: jax.Array = jax.device_put(data.from_uint8(images), by_example(len(images)))
  return placed


def even(count: int) -> int:
  """``count`` rounded up so that all local devices can share it; fewer examples than devices stay."""
  devices = jax.local_device_count()
  return -(-count // devices) * devices if count > devices else count


def padded(ts: np.ndarray) -> tuple[np.ndarray, np.int32]:
  """Levels and their number of steps, padded to one of a few lengths: see `ddim_jax.timesteps.pad`."""
  steps = len(ts) - 1
  return timesteps.pad(ts, max(_LEAST_LENGTH, 1 << (steps - 1).bit_length()))


def as_solver(solver: str | Solver | None, eta: Any = 0.0) -> Solver:
  """A solver by name, DDIM for None, or the one given; ``eta``, perhaps traced, is DDIM's.

  Raises:
    ValueError: If there is no such name.
  """
  if isinstance(solver, Solver):
    return solver
  return tables.named(tables.SOLVERS, "ddim" if solver is None else solver, "solver")(eta)


def checked_eta(eta: float, solver: str | Solver | None) -> np.float32:
  """Eta; ValueError unless it is in [0, 1], and 0 for all solvers but DDIM."""
  ranges.check(ranges.Unit, "eta", eta)
  if eta and solver not in (None, "ddim"):
    name = solver if isinstance(solver, str) else "a solver of its own"
    raise ValueError(f"eta goes with the solver ddim, got eta {eta:g} with {name}")
  return np.float32(eta)


def placed(model: "Model", sharing: jax.sharding.NamedSharding) -> "Model":
  """The model on all devices that share examples, sent there once."""
  key = ("placed", sharing.mesh)
  if key not in model.programs:
    model.programs[key] = jax.device_put(model, everywhere(sharing))
  found: Model = model.programs[key]
  return found


def numbered_images(
  model: "Model",
  ts: np.ndarray,
  *,
  solver: str | Solver | None = None,
  seed: int = 0,
  label: Any = None,
  guidance: float = 1.0,
  clip: bool = True,
  at_once: int = 64,
) -> tuple[int, Draw]:
  """A sampler over all local devices.

  Args:
    model: Whose images; its parameters may be given to each call instead.
    ts: Levels to visit, ``[S+1]``.
    solver: A key of `tables.SOLVERS`, a Solver, or None for DDIM.
    seed: With an image's index, decides the image.
    label: Class of every image, ``i32[]``, or of image i, ``i32[num]``; None takes the index modulo the
      number of classes.
    guidance: Weight of classifier-free guidance; 1 is none.
    clip: Restrict predictions of x0.
    at_once: Images wanted at a time, rounded up to what the devices can share.

  Returns:
    ``(size, draw)``. Image i depends on the seed and i alone, not on the other indices, the size or
    the number of devices.

  Raises:
    ValueError: On a solver, seed, label or guidance that does not go with the model.
    FloatingPointError: When drawing, if an image is NaN or infinite.
  """
  as_solver(solver)
  model.replace(params=()).denoiser(
    guidance=guidance
  )  # what does not go together is said before anything compiles
  size, guided, (levels, count) = even(at_once), is_guided(guidance), padded(ts)
  key, sharing, classes = key_of(seed), by_example(size), len(model.classes)

  def run(
    model: "Model", key: Any, eta: Any, guidance: Any, ts: Any, count: Any, indices: Any, labels: Any
  ) -> jax.Array:
    keys = image_keys(key, indices)
    noise = initial_noise(keys, (indices.shape[0], *model.shape))
    denoise = model.denoiser(label=labels, guidance=guidance if guided else 1.0, clip=clip)
    return sample(keys, denoise, model.schedule, noise, ts, solver=as_solver(solver, eta), count=count)[0]

  program = model.programs.setdefault((solver, guided, clip), jax.jit(run))

  def labels_of(indices: np.ndarray) -> np.ndarray | None:
    if not classes:
      return None
    if label is None:
      return indices % classes
    each = np.asarray(label, np.int32)
    return each[np.minimum(indices, len(each) - 1)] if each.ndim else np.full_like(indices, each)

  def draw(indices: np.ndarray, eta: float = 0.0, params: Any = None) -> np.ndarray:
    indices, noise = np.asarray(indices, np.int32), checked_eta(eta, solver)
    other = None if params is None else model.replace(params=params)
    ready = placed(model, sharing) if other is None else jax.device_put(other, everywhere(sharing))
    shared = jax.device_put((indices, labels_of(indices)), sharing)
    images = np.asarray(program(ready, key, noise, np.float32(guidance), levels, count, *shared))
    finite = np.isfinite(images).reshape(len(images), -1).all(axis=1)
    if not finite.all():
      raise FloatingPointError(
        f"{(~finite).sum()} of {len(images)} images are not finite, such as image {indices[~finite][0]}: the"
        " model's weights are not, or guidance is too strong"
      )
    return images

  return size, draw


def numbered_pictures(model: "Model", ts: np.ndarray, **options: Any) -> tuple[int, Draw]:
  """`numbered_images` whose images are pixels, ``u8[size, H, W, C]``."""
  from ddim_jax import data

  size, draw = numbered_images(model, ts, **options)
  return size, lambda *arguments, **more: data.to_uint8(draw(*arguments, **more))


def inverted(
  model: "Model", images: np.ndarray, ts: np.ndarray, refine: int, label: Any, batch_size: int
) -> np.ndarray:
  """The noise behind images, ``f32[N, H, W, C]``; see `Model.invert`."""
  size = even(min(len(images), batch_size * jax.local_device_count()))
  sharing, each = by_example(size), None if label is None else np.broadcast_to(label, len(images))

  def run(model: "Model", x0: jax.Array, labels: Any, ts: Any, refine: Any) -> jax.Array:
    denoise = model.denoiser(label=labels, clip=False)
    return invert(denoise, model.schedule, x0, ts, refine=refine)

  program, found = model.programs.setdefault("invert", jax.jit(run)), []
  for first in range(0, len(images), size):
    rows = np.minimum(np.arange(first, first + size), len(images) - 1)
    shared = jax.device_put((images[rows], None if each is None else each[rows]), sharing)
    found.append(np.asarray(program(placed(model, sharing), *shared, ts, np.int32(refine))))
  return np.concatenate(found)[: len(images)]
