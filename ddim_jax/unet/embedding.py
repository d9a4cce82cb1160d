"""What a U-Net knows of an image besides its pixels, as one vector: level, class, condition.

The functions are called within the ``__call__`` of a network, a `ddim_jax.UNet` or the classifier of noisy
images; the layers that they make are the network's.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ddim_jax.unet.layers import init


def width(network: Any) -> int:
  """Length of the vector."""
  found: int = network.embedding or 4 * network.channels
  return found


def _dense(network: Any, name: str) -> nn.Dense:
  return nn.Dense(width(network), dtype=network.dtype, kernel_init=init(), name=name)


def _features(network: Any, t: jax.Array) -> jax.Array:
  found: jax.Array = network.time.features(network, t, network.channels).astype(network.dtype)
  return found


def of_level(network: Any, t: jax.Array) -> jax.Array:
  """``[B, embedding]`` of levels ``[B]``."""
  dense = functools.partial(_dense, network)
  embedding: jax.Array = dense("time_2")(nn.swish(dense("time_1")(_features(network, t))))
  return embedding


def embedded(network: Any, t: jax.Array, labels: jax.Array | None, conditions: jax.Array | None) -> jax.Array:
  """``[B, embedding]`` of levels ``[B]``, labels and conditions, as a `ddim_jax.UNet` is given them."""
  wide, dense, features = (
    width(network),
    functools.partial(_dense, network),
    functools.partial(_features, network),
  )
  embedding = of_level(network, t)
  if network.label_embedding is not None:
    embedding = embedding + network.label_embedding(labels, features, dense)
  elif network.num_classes is not None:
    null = jnp.full(t.shape, network.num_classes)
    embed = nn.Embed(network.num_classes + network.null_class, wide, dtype=network.dtype, name="classes")
    embedding = embedding + embed(null if labels is None else labels)

  if network.condition_size is not None:
    unknown = jnp.full((t.shape[0], network.condition_size), jnp.nan)
    vectors = unknown if conditions is None else conditions
    none = jnp.any(jnp.isnan(vectors), axis=1, keepdims=True)
    hidden = nn.swish(dense("condition_1")(jnp.where(none, 0, vectors).astype(network.dtype)))
    null = network.param("no_condition", nn.initializers.zeros, (wide,), jnp.float32).astype(network.dtype)
    embedding = embedding + jnp.where(none, null[None], dense("condition_2")(hidden))
  return embedding
