"""Randomness: from a seed to keys, and from keys to noise, the same whatever the settings of JAX.

An image is identified by a seed and its number i, and each of its draws by a number k:

    key of image i = fold_in(key_of(seed), i),    draw k = normal(fold_in(key of image i, k))

Draw 0 is x_T, draw k the noise of step k, and draw k + 2^24 its second noise, for a solver that takes two. So
image i is the same in any batch, on any number of devices.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ddim_jax import ranges

_GENERATOR = "threefry2x32"
"""The only generator of JAX in which the numbers of a key in a batch are those of the key alone."""
_LAST = 2**31 - 1


def key_of(seed: int) -> jax.Array:
  """The key of a seed in [0, 2^63): all differ, and below 2^32 they are those of ``jax.random.key``.

  Neither jax_default_prng_impl nor jax_enable_x64 changes it.

  Raises:
    ValueError: On another seed.
  """
  ranges.check(ranges.Seed, "seed", seed)
  high, low = divmod(int(seed), 2**32)  # of numpy's integers, most are too narrow for this
  words = jnp.asarray(np.array([high, low], np.uint32))
  found: jax.Array = jax.random.wrap_key_data(words, impl=_GENERATOR)
  return found


def typed(key: jax.Array) -> jax.Array:
  """Keys as typed keys; those of the old kind, ``u32[..., 2]``, are wrapped.

  Raises:
    ValueError: If they are no keys.
  """
  dtype = getattr(key, "dtype", None)
  if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key):
    return key
  if dtype != np.uint32:
    kind = type(key).__name__ if dtype is None else f"{dtype}{key.shape}"
    raise ValueError(f"key must be a key of jax.random.key or one for each image, got {kind}")
  found: jax.Array = jax.random.wrap_key_data(key)
  return found


def independent(key: jax.Array) -> jax.Array:
  """Typed keys, to be used one for each example of a batch.

  Raises:
    ValueError: If they are no keys, or of a generator whose numbers would depend on the rest of the batch.
  """
  key = typed(key)
  if "rbg" in str(jax.random.key_impl(key)):
    raise ValueError(
      f"key must be of {_GENERATOR}, got {jax.random.key_impl(key)}: its numbers for an image would depend on"
      f" the batch; make it with jax.random.key(seed, impl={_GENERATOR!r})"
    )
  return key


def image_keys(key: jax.Array, indices: ArrayLike) -> jax.Array:
  """One key per image, ``key[B]``: image ``i`` of a seed has the same noise in any batch.

  Args:
    key: ``jax.random.key(seed)``.
    indices: ``i32[B]``, the images' numbers, at least 0.

  Raises:
    ValueError: If they are no integers; or out of range, and not traced.
  """
  array: Any = indices if hasattr(indices, "dtype") else np.asarray(indices)
  if not jnp.issubdtype(array.dtype, jnp.integer):
    raise ValueError(f"indices must be integers, got {array.dtype}{array.shape}")
  if not isinstance(array, jax.core.Tracer) and np.any(
    (array < 0) | (array > _LAST)
  ):  # they would wrap round
    raise ValueError(f"indices must be in [0, {_LAST:,}], got {array.min()} to {array.max()}")
  return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(independent(key), jnp.asarray(indices))


def initial_noise(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
  """The ``x_T`` that belongs to these keys: standard normal, ``f32[B, ...]`` of ``shape``.

  `sample` with the same ``key`` (one, or one per image) never draws this noise again.

  Raises:
    ValueError: If there is neither one key nor one per image.
  """
  return draw_noise(check_keys(key, shape), 0, shape, dtype)


def check_keys(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """The key, or keys of a batch of this shape, as typed keys; ValueError on any other number."""
  key = typed(key)
  if key.shape not in ((), tuple(shape[:1])):
    raise ValueError(f"key must be one key or one per image, {tuple(shape[:1])}; got shape {key.shape}")
  return independent(key) if key.ndim else key


def draw_noise(keys: jax.Array, draw: ArrayLike, shape: tuple[int, ...], dtype: Any) -> jax.Array:
  """Draw number ``draw`` of standard normal noise, from one key or from one per image."""
  if keys.ndim == 0:
    return jax.random.normal(jax.random.fold_in(keys, draw), shape, dtype)
  return jax.vmap(lambda key: draw_noise(key, draw, shape[1:], dtype))(keys)


def step_noise(keys: jax.Array, draw: ArrayLike, draws: int, shape: tuple[int, ...], dtype: Any) -> jax.Array:
  """The noise of step number ``draw``: of ``shape``, or ``[draws, *shape]`` for a solver of several draws."""
  if draws == 1:
    return draw_noise(keys, draw, shape, dtype)
  return jnp.stack([draw_noise(keys, draw + (i << 24), shape, dtype) for i in range(draws)])
