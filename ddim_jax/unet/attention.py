"""Self-attention over pixels."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ddim_jax.unet.layers import group_norm, init
from ddim_jax.unet.operations import Operations

_SCORES = 2**20
"""Scores of one image and head that are held at a time: all of a 32x32 map, or 256 queries of a 64x64 map."""


@jax.jit
def attention(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
  """`jax.nn.dot_product_attention`, in parts of the queries where the matrix of all scores would be large.

  Its scores and softmax are in float32 (or wider). For the backward pass they are computed again where there
  are parts, and on a TPU, whose program needs less memory then.

  Args:
    q, k, v: Queries, keys and values, ``[B, N, heads, C]``.

  Returns:
    ``[B, N, heads, C]``.
  """
  number = q.shape[1]
  size = next(size for size in range(max(1, min(number, _SCORES // number)), 0, -1) if number % size == 0)

  def part(q: jax.Array) -> jax.Array:
    with jax.numpy_dtype_promotion("standard"):  # it takes bfloat16 and float32 together
      return jax.nn.dot_product_attention(q, k, v)

  if size == number:
    whole: jax.Array = jax.lax.platform_dependent(q, tpu=jax.checkpoint(part), default=part)
    return whole
  parts = jnp.moveaxis(q.reshape(q.shape[0], -1, size, *q.shape[2:]), 1, 0)
  return jnp.moveaxis(jax.lax.map(jax.checkpoint(part), parts), 0, 1).reshape(q.shape)


class Attention(nn.Module):
  """Self-attention over all pixels, with softmax in float32, added to its input.

  One head, or so many ``heads``, or heads of ``head_dim`` channels each; ``groups`` 0 leaves out the norm.
  """

  groups: int
  operations: Operations
  dtype: Any
  eps: float = 1e-6
  head_dim: int | None = None
  divisor: float = 1.0
  heads: int | None = None

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    batch, height, width, channels = x.shape
    if channels % (self.head_dim or self.heads or 1):
      raise ValueError(
        f"head_dim and heads must divide the channels with attention, {channels}, got {self.head_dim} and"
        f" {self.heads}"
      )
    head = channels // (self.heads or 1) if self.head_dim is None else self.head_dim
    dense = lambda name, scale=1.0: nn.Dense(channels, dtype=self.dtype, kernel_init=init(scale), name=name)
    h = group_norm(x, self.groups, self.eps, self.operations, self.dtype, "norm") if self.groups else x
    h = h.reshape(batch * height * width, channels)
    q, k, v = (dense(name)(h).reshape(batch, height * width, -1, head) for name in ("q", "k", "v"))
    h = attention(q, k, v).reshape(batch * height * width, channels)
    h = dense("out", scale=0)(h).reshape(x.shape)
    return (x + h) / self.divisor if self.divisor != 1 else x + h
