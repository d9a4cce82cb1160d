"""The layers of the U-Net: convolutions, norms, residual blocks, features of the level.

Every convolution of the network is made by `conv`, and every norm by `group_norm`.
"""

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ddim_jax.convolution import upsampled
from ddim_jax.schedules import wide
from ddim_jax.unet.operations import Operations


def init(scale: float = 1.0) -> Any:
  """Uniform with variance ``scale / fan_avg``; scale 0 is the DDPM code's nearly zero."""
  return nn.initializers.variance_scaling(scale or 1e-10, "fan_avg", "uniform")


def conv(
  features: int, size: int = 3, *, dtype: Any, scale: float = 1.0, name: str, **kwargs: Any
) -> nn.Conv:
  """A convolution of ``size`` x ``size`` pixels."""
  return nn.Conv(features, (size, size), dtype=dtype, kernel_init=init(scale), name=name, **kwargs)


def conv3x3(
  features: int, by: Callable[..., jax.Array], *, dtype: Any, scale: float = 1.0, name: str
) -> nn.Conv:
  """A convolution of 3x3 pixels with zero padding, computed ``by`` an algorithm."""
  compute = lambda x, kernel, *_, **__: by(x, kernel)
  return conv(features, dtype=dtype, scale=scale, name=name, conv_general_dilated=compute)


def conv1x1(features: int, *, dtype: Any, name: str) -> nn.Conv:
  """A convolution of one pixel, as a product of two matrices: so its gradients are such products, too."""
  compute = lambda x, kernel, *_, **__: (x.reshape(-1, x.shape[-1]) @ kernel[0, 0]).reshape(*x.shape[:-1], -1)
  return conv(features, 1, dtype=dtype, name=name, conv_general_dilated=compute)


def halved(x: jax.Array) -> jax.Array:
  """Means over squares of 2x2 pixels, ``[B, H / 2, W / 2, C]``."""
  batch, height, width, channels = x.shape
  return x.reshape(batch, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))


def doubled(x: jax.Array) -> jax.Array:
  """Nearest upsampling by 2, ``[B, 2 H, 2 W, C]``."""
  return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


def upsample(features: int, *, dtype: Any, name: str) -> nn.Conv:
  """Nearest upsampling by 2, then a 3x3 convolution."""
  return conv3x3(features, upsampled, dtype=dtype, name=name)


class GroupNorm(nn.Module):
  """``flax.linen.GroupNorm`` with its parameters, summed over pixels first and then over the channels of a
  group: reductions along the layout of NHWC. One product and one sum a pixel, so that the backward pass
  reads ``x`` and no centred copy of it.
  """

  groups: int
  eps: float
  operations: Operations

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    channels = x.shape[-1]
    scale = self.param("scale", nn.initializers.ones, (channels,), jnp.float32)
    bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
    normalised: jax.Array = _normalised(x, scale, bias, self.groups, self.eps, self.operations)
    return normalised


@partial(jax.jit, static_argnums=(3, 4, 5))
def _normalised(
  x: jax.Array, scale: jax.Array, bias: jax.Array, groups: int, eps: float, operations: Operations
) -> jax.Array:
  """Traced once for each shape: a network has dozens of norms and a handful of shapes."""
  sums = jnp.stack([x.mean(axis=(1, 2)), (x * x).mean(axis=(1, 2))])
  mean, square = operations.average(sums, groups)
  inverse = jax.lax.rsqrt(jnp.maximum(square - mean * mean, 0) + eps)
  inverse, mean = operations.spread(jnp.stack([inverse, mean]), x.shape[-1])
  factor = inverse * scale[None].astype(x.dtype)
  offset = bias[None].astype(x.dtype) - mean * factor
  normalised: jax.Array = x * factor[:, None, None] + offset[:, None, None]
  return normalised


def group_norm(
  x: jax.Array, groups: int, eps: float, operations: Operations, dtype: Any, name: str
) -> jax.Array:
  """GroupNorm with float32 arithmetic (or wider), returned in ``dtype``."""
  return GroupNorm(groups, eps, operations, name=name)(x.astype(wide(dtype))).astype(dtype)


def time_embedding(t: jax.Array, channels: int, shift: float = 1.0) -> jax.Array:
  """``[sin, cos]`` of ``t`` at ``channels / 2`` frequencies from 1 down to 1e-4: ``f32[B, channels]``.

  Released networks number their levels 0..T-1: this is where level t becomes t - 1. The exponent of
  frequency k is ``k / (channels / 2 - shift)``.
  """
  half = channels // 2
  frequencies = jnp.exp(-math.log(1e4) / float(half - shift) * jnp.arange(half, dtype=jnp.float32))
  angles = (t.astype(jnp.float32) - 1)[:, None] * frequencies[None]
  return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


@dataclasses.dataclass(frozen=True)
class Sinusoids:
  """Features of a level: `time_embedding`, or with ``cos_first`` its halves exchanged.

  There are ``width`` of them; None means as many as the network's base width.
  """

  cos_first: bool = False
  shift: float = 1.0
  width: int | None = None

  def features(self, module: nn.Module, t: jax.Array, channels: int) -> jax.Array:
    """``f32[B, width]`` of levels ``[B]``."""
    number = self.width or channels
    features = time_embedding(t, number, self.shift)
    return jnp.roll(features, number // 2, axis=-1) if self.cos_first else features

  def output(self, h: jax.Array, t: jax.Array) -> jax.Array:
    """The network's output, as it is."""
    return h


@dataclasses.dataclass(frozen=True)
class RandomFourier:
  """Features of score networks: sines of ``log(t - 1)`` at fixed random frequencies, output over ``t - 1``.

  Song et al., arXiv:2011.13456. There t - 1 is a noise scale, so level 1 is outside the domain.
  """

  scale: float = 16.0

  def features(self, module: nn.Module, t: jax.Array, channels: int) -> jax.Array:
    """``f32[B, 2 * channels]`` of levels ``[B]``; the frequencies are stored but never trained."""
    frequencies = module.param(
      "time_frequencies", nn.initializers.normal(self.scale), (channels,), jnp.float32
    )
    logs = jnp.log(t.astype(jnp.float32) - 1)
    angles = logs[:, None] * jax.lax.stop_gradient(frequencies)[None] * (2 * math.pi)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)

  def output(self, h: jax.Array, t: jax.Array) -> jax.Array:
    """The network's output divided by the noise scale."""
    return h / (t.astype(h.dtype) - 1)[:, None, None, None]


def dropout(x: jax.Array, keys: jax.Array, rate: float) -> jax.Array:
  """Zeroes elements at a rate and divides the others by what is left; image i depends on ``keys[i]``.

  The choice is made once and kept, a byte an element: XLA's compiler for TPUs would put the random numbers
  into every kernel that needs them, convolutions included, and take nearly half its time to compile those.
  """
  kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))(keys)
  kept = jax.lax.optimization_barrier(kept)
  return jnp.where(kept, x / (1 - rate), jnp.zeros((), x.dtype))


class ResidualBlock(nn.Module):
  """``x + conv(dropout(norm(conv(norm(x)) + embedding)))`` with the activation after each norm.

  The shortcut is a 1x1 convolution where the number of channels changes. With ``scale_shift`` the
  embedding gives ``norm(h) * (1 + scale) + shift`` instead of a sum; the result is divided by ``divisor``.
  With ``size`` "half" or "twice", both paths change the size, before ``conv1``. Without keys, one for each
  image, there is no dropout.
  """

  channels: int
  groups: int
  dropout: float
  operations: Operations
  dtype: Any
  eps: float = 1e-6
  activation: Callable[[jax.Array], jax.Array] = nn.swish
  scale_shift: bool = False
  divisor: float = 1.0
  size: str = "same"

  @nn.compact
  def __call__(self, x: jax.Array, embedding: jax.Array, keys: jax.Array | None) -> jax.Array:
    norm = lambda h, name: group_norm(h, self.groups, self.eps, self.operations, self.dtype, name)
    conv3 = lambda name, by=self.operations.convolve, **options: conv3x3(
      self.channels, by, dtype=self.dtype, name=name, **options
    )
    h = self.activation(norm(x, "norm1"))
    if self.size == "half":
      h, x = halved(h), halved(x)
    if self.size == "twice":
      h, x = conv3("conv1", upsampled)(h), doubled(x)
    else:
      h = conv3("conv1")(h)
    width = self.channels * (2 if self.scale_shift else 1)
    change = nn.Dense(width, dtype=self.dtype, kernel_init=init(), name="time")(self.activation(embedding))
    change = change[:, None, None, :]
    if self.scale_shift:
      scale, shift = jnp.split(change, 2, axis=-1)
      h = norm(h, "norm2") * (1 + scale) + shift
    else:
      h = norm(h + change, "norm2")
    h = self.activation(h)
    if keys is not None:
      h = dropout(h, keys, self.dropout)
    h = conv3("conv2", scale=0)(h)
    if x.shape[-1] != self.channels:
      x = conv1x1(self.channels, dtype=self.dtype, name="shortcut")(x)
    return (x + h) / self.divisor if self.divisor != 1 else x + h
