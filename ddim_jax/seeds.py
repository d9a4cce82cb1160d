"""From a seed to a random key, the same whatever the settings of JAX."""

import jax
import jax.numpy as jnp
import numpy as np

from ddim_jax import ranges

_GENERATOR = "threefry2x32"
"""The only generator of JAX in which the numbers of a key in a batch are those of the key alone."""


def key_of(seed: int) -> jax.Array:
  """The key of a seed in [0, 2^63): all differ, and below 2^32 they are those of ``jax.random.key``.

  Neither jax_default_prng_impl nor jax_enable_x64 changes it.

  Raises:
    ValueError: On another seed.
  """
  ranges.check(ranges.Seed, "seed", seed)
  words = jnp.asarray(np.array([seed >> 32, seed & 0xFFFFFFFF], np.uint32))
  return jax.random.wrap_key_data(words, impl=_GENERATOR)


def typed(key: jax.Array) -> jax.Array:
  """Keys as typed keys; those of the old kind, ``u32[..., 2]``, are wrapped.

  Raises:
    ValueError: If they are no keys.
  """
  dtype = getattr(key, "dtype", None)
  if dtype is not None and jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key):
    return key
  if dtype != np.uint32:
    kind = type(key).__name__ if dtype is None else f"{dtype}{key.shape}"
    raise ValueError(f"key must be a key of jax.random.key or one for each image, got {kind}")
  return jax.random.wrap_key_data(key)


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
