"""Images of a model by number, over all local devices, with one compiled program for every S."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.typing import ArrayLike

from ddim_jax import timesteps, tuning
from ddim_jax.inversion import invert
from ddim_jax.models import denoising, tables
from ddim_jax.models.denoising import is_guided
from ddim_jax.sampling import sample
from ddim_jax.scaling import BYTES, Scaling, to_uint8
from ddim_jax.seeds import image_keys, initial_noise, key_of
from ddim_jax.solvers import Solver

if TYPE_CHECKING:
  from ddim_jax.models.model import Model

_LEAST_LENGTH = 64
"""Levels are padded to this many steps, and beyond it to the next power of two."""

Draw = Callable[..., np.ndarray]
"""``(indices: i32[size], eta=0.0, params=the model's) -> f32[size, H, W, C]``, numpy."""


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


def on_devices(images: np.ndarray, scaling: Scaling = BYTES) -> jax.Array:
  """Stored values ``[B, *shape]`` as data, laid out `by_example`."""
  placed: jax.Array = jax.device_put(scaling.to_data(images), by_example(len(images)))
  return placed


def even(count: int) -> int:
  """``count`` rounded up so that all local devices can share it; fewer examples than devices stay."""
  devices = jax.local_device_count()
  return -(-count // devices) * devices if count > devices else count


def padded(ts: np.ndarray) -> tuple[np.ndarray, np.int32]:
  """Levels and their number of steps, padded to one of a few lengths: see `ddim_jax.timesteps.pad`."""
  steps = len(ts) - 1
  return timesteps.pad(ts, max(_LEAST_LENGTH, 1 << (steps - 1).bit_length()))


def starts(model: "Model", key: jax.Array, indices: Any) -> tuple[jax.Array, jax.Array]:
  """Keys ``[B]`` and first noise ``f32[B, H, W, C]`` of the images of these numbers. May be traced."""
  keys = image_keys(key, indices)
  return keys, initial_noise(keys, (len(indices), *model.shape))


def in_turn(model: "Model", indices: Any) -> Any:
  """Image i is of class i modulo the number of classes: ``i32[B]``, or None for an unconditional model."""
  return indices % len(model.classes) if model.classes else None


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
  condition: Any = None,
  guidance: float = 1.0,
  clip: bool = True,
  at_once: int = 64,
) -> tuple[int, Draw]:
  """A sampler over all local devices.

  Args:
    model: Whose images; its parameters may be given to each call instead.
    ts: Levels to visit, ``[S+1]``.
    solver: A key of `tables.SOLVERS`, a Solver, or None for the model's own.
    seed: With an image's index, decides the image.
    label: Class of every image, ``i32[]``, or of image i, ``i32[num]``; None takes the index modulo the
      number of classes.
    condition: Of every image, ``f32[K]``, or of image i, ``f32[num, K]``; None is none.
    guidance: Weight of classifier-free guidance; 1 is none.
    clip: Clip predictions of x0.
    at_once: Images wanted at a time, rounded up to what the devices can share.

  Returns:
    ``(size, draw)``. Image i depends on the seed and i alone, not on the other indices, the size or
    the number of devices.

  Raises:
    ValueError: On a solver, seed, label or guidance that does not go with the model.
    FloatingPointError: When drawing, if an image is NaN or infinite.
  """
  solver = model.solver if solver is None else solver
  tables.as_solver(solver)
  # What does not go together is said before anything compiles.
  model.replace(params=()).denoiser(condition=condition, guidance=guidance)
  size, guided, (levels, count) = even(at_once), is_guided(guidance), padded(ts)
  key, sharing = key_of(seed), by_example(size)

  def run(
    model: "Model", key: Any, eta: Any, guidance: Any, ts: Any, count: Any, indices: Any, given: Any
  ) -> jax.Array:
    labels, vectors = given
    keys, noise = starts(model, key, indices)
    denoise, variance = denoising.pair(model, labels, vectors, guidance if guided else 1.0, clip)
    rule = tables.as_solver(solver, eta, variance)
    return sample(keys, denoise, model.schedule, noise, ts, solver=rule, count=count)[0]

  program = model.programs.setdefault((solver, guided, clip), jax.jit(run, compiler_options=tuning.options()))

  def labels_of(indices: np.ndarray) -> Any:
    if label is None or not model.classes:
      return in_turn(model, indices)
    each = np.asarray(label, np.int32)
    return each[np.minimum(indices, len(each) - 1)] if each.ndim else np.full_like(indices, each)

  def conditions_of(indices: np.ndarray) -> np.ndarray | None:
    if condition is None:
      return None
    each = np.asarray(condition, np.float32)
    return each[np.minimum(indices, len(each) - 1)] if each.ndim > 1 else np.tile(each, (len(indices), 1))

  def draw(indices: np.ndarray, eta: float = 0.0, params: Any = None) -> np.ndarray:
    indices, noise = np.asarray(indices, np.int32), tables.checked_eta(eta, solver)
    other = None if params is None else model.replace(params=params)
    ready = placed(model, sharing) if other is None else jax.device_put(other, everywhere(sharing))
    given = (labels_of(indices), conditions_of(indices))
    shared = jax.device_put((indices, given), sharing)
    images = program(ready, key, noise, np.float32(guidance), levels, count, *shared)
    return finite(images, indices)

  return size, draw


def finite(samples: ArrayLike, numbers: np.ndarray | None = None) -> np.ndarray:
  """Samples ``f32[B, ...]`` as an array of numpy.

  Raises:
    FloatingPointError: If one is NaN or infinite; names it by its number, in their order by default.
  """
  found = np.asarray(samples)
  wrong = ~np.isfinite(found).reshape(len(found), -1).all(axis=1)
  if wrong.any():
    first = np.arange(len(found))[wrong][0] if numbers is None else numbers[wrong][0]
    raise FloatingPointError(
      f"{wrong.sum()} of {len(found)} images are not finite, such as image {first}: the model's weights are"
      " not, or guidance is too strong"
    )
  return found


def sampled(
  model: "Model", num: int, ts: np.ndarray, eta: float, batch_size: int, **options: Any
) -> np.ndarray:
  """Images 0 to ``num - 1``, ``f32[num, *shape]``; see `Model.sample`. Options are of `numbered_images`."""
  label, condition = options["label"], options["condition"]
  if label is not None and np.ndim(label) and len(label) != num:
    raise ValueError(f"label must be one class or one for each of {num} images, got {len(label)}")
  if condition is not None and np.ndim(condition) > 1 and len(condition) != num:
    raise ValueError(f"condition must be one vector or one for each of {num}, got {len(condition)}")
  at_once = min(num, batch_size * jax.local_device_count())
  size, draw = numbered_images(model, ts, at_once=at_once, **options)
  blocks = [draw(np.arange(first, first + size), eta) for first in range(0, num, size)]
  return np.concatenate(blocks)[:num]


def pictures(model: "Model", samples: np.ndarray) -> np.ndarray:
  """Samples as pictures to look at, ``u8[B, H, W, C]``; see `Model.pictures`."""
  if model.decode is not None:
    decoded = np.asarray(model.decode(model.scaling.to_values(samples)))
    return decoded if decoded.dtype == np.uint8 else to_uint8(decoded)
  if len(model.shape) != 3:
    raise ValueError(f"samples of shape {model.shape} are no pictures, and the model has no decode")
  return model.scaling.to_bytes(samples)


def numbered_pictures(model: "Model", ts: np.ndarray, **options: Any) -> tuple[int, Draw]:
  """`numbered_images` as pictures to look at, ``u8[size, H, W, C]``, see `Model.pictures`."""
  size, draw = numbered_images(model, ts, **options)
  return size, lambda *arguments, **more: model.pictures(draw(*arguments, **more))


def numbered_values(model: "Model", ts: np.ndarray, **options: Any) -> tuple[int, Draw]:
  """`numbered_images` in the type and the range of the data set."""
  size, draw = numbered_images(model, ts, **options)
  return size, lambda *arguments, **more: model.scaling.to_values(draw(*arguments, **more))


def inverted(
  model: "Model", images: np.ndarray, ts: np.ndarray, refine: int, label: Any, condition: Any, batch_size: int
) -> np.ndarray:
  """The noise behind images, ``f32[N, *shape]``; see `Model.invert`."""
  if images.shape[1:] != model.shape or images.dtype != np.float32 or not len(images):
    raise ValueError(
      f"images must be a non-empty f32[N, {', '.join(map(str, model.shape))}] in [-1, 1], got"
      f" {images.dtype}{images.shape}"
    )
  size, number = even(min(len(images), batch_size * jax.local_device_count())), len(images)
  labels = None if label is None else np.broadcast_to(label, number)
  vectors = None if condition is None else np.asarray(condition, np.float32)
  if vectors is not None and vectors.ndim == 1:
    vectors = np.tile(vectors, (number, 1))
  sharing = by_example(size)

  def run(model: "Model", x0: jax.Array, labels: Any, vectors: Any, ts: Any, refine: Any) -> jax.Array:
    denoise = model.denoiser(label=labels, condition=vectors, clip=False)
    return invert(denoise, model.schedule, x0, ts, refine=refine)

  program, found = model.programs.setdefault("invert", jax.jit(run, compiler_options=tuning.options())), []
  for first in range(0, len(images), size):
    rows = np.minimum(np.arange(first, first + size), len(images) - 1)
    given = (None if x is None else x[rows] for x in (labels, vectors))
    shared = jax.device_put((images[rows], *given), sharing)
    found.append(finite(program(placed(model, sharing), *shared, ts, np.int32(refine)), rows))
  return np.concatenate(found)[: len(images)]
