"""The U-Net of DDPM and DDIM, in Flax linen, images as NHWC.

    x_t -> conv_in -> [level: blocks (+ attention) -> half the size] ... -> middle
        -> [level: blocks with skip connections (+ attention) -> twice the size] ... -> conv_out

With its defaults it is the CIFAR-10 network of DDPM (appendix B of arXiv:2006.11239) to the letter,
35.7 M parameters, initialisers included. The parameter tree does not depend on dtype or remat.
"""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def _init(scale: float = 1.0):
  """Uniform with variance ``scale / fan_avg``; scale 0 is the DDPM code's nearly zero."""
  return nn.initializers.variance_scaling(scale or 1e-10, "fan_avg", "uniform")


def _conv(features: int, size: int = 3, *, dtype, scale: float = 1.0, name: str, **kwargs) -> nn.Conv:
  return nn.Conv(features, (size, size), dtype=dtype, kernel_init=_init(scale), name=name, **kwargs)


def _at_least_float32(dtype):
  return dtype if jnp.finfo(dtype).bits >= 32 else jnp.float32


def _norm(x: jax.Array, groups: int, dtype, name: str) -> jax.Array:
  """GroupNorm with float32 arithmetic (or wider), returned in ``dtype``."""
  wide = _at_least_float32(dtype)
  return nn.GroupNorm(groups, epsilon=1e-6, dtype=wide, name=name)(x.astype(wide)).astype(dtype)


def time_embedding(t: jax.Array, channels: int) -> jax.Array:
  """``[sin, cos]`` of ``t`` at ``channels / 2`` frequencies from 1 down to 1e-4: ``f32[B, channels]``.

  Released networks number their levels 0..T-1: this is the one place where level t becomes t - 1.
  """
  half = channels // 2
  frequencies = jnp.exp(-math.log(1e4) / (half - 1) * jnp.arange(half, dtype=jnp.float32))
  angles = (t.astype(jnp.float32) - 1)[:, None] * frequencies[None]
  return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


class ResidualBlock(nn.Module):
  """``x + conv(dropout(norm(conv(norm(x)) + embedding)))`` with swish after each norm.

  The shortcut is a 1x1 convolution where the number of channels changes.
  """

  channels: int
  groups: int
  dropout: float
  dtype: Any

  @nn.compact
  def __call__(self, x, embedding, train: bool):
    h = nn.swish(_norm(x, self.groups, self.dtype, "norm1"))
    h = _conv(self.channels, dtype=self.dtype, name="conv1")(h)
    shift = nn.Dense(self.channels, dtype=self.dtype, kernel_init=_init(), name="time")
    h = h + shift(nn.swish(embedding))[:, None, None, :]
    h = nn.Dropout(self.dropout, deterministic=not train)(
      nn.swish(_norm(h, self.groups, self.dtype, "norm2"))
    )
    h = _conv(self.channels, dtype=self.dtype, scale=0, name="conv2")(h)
    if x.shape[-1] != self.channels:
      x = _conv(self.channels, 1, dtype=self.dtype, name="shortcut")(x)
    return x + h


class Attention(nn.Module):
  """Single-head self-attention over all pixels, with softmax in float32, added to its input."""

  groups: int
  dtype: Any

  @nn.compact
  def __call__(self, x):
    batch, height, width, channels = x.shape
    dense = lambda name, scale=1.0: nn.Dense(channels, dtype=self.dtype, kernel_init=_init(scale), name=name)
    h = _norm(x, self.groups, self.dtype, "norm").reshape(batch, height * width, channels)
    q, k, v = (dense(name)(h) for name in ("q", "k", "v"))
    scores = jnp.einsum("bqc,bkc->bqk", q, k) * channels**-0.5
    weights = nn.softmax(scores.astype(jnp.float32)).astype(self.dtype)
    h = dense("out", scale=0)(jnp.einsum("bqk,bkc->bqc", weights, v))
    return x + h.reshape(x.shape)


class UNet(nn.Module):
  """Predicts noise (or whatever it is trained to) from a noisy image and its level.

  Presets: CIFAR-10 is the default; CelebA 64: ``multipliers=(1, 2, 2, 2, 4)``; LSUN and CelebA-HQ 256:
  ``multipliers=(1, 1, 2, 2, 4, 4), dropout=0.0``.

  Attributes:
    channels: Base width, even; a multiple of ``groups``, as are all widths.
    multipliers: Width of each level in units of ``channels``; the size halves between levels.
    blocks: Residual blocks a level on the way down (one more on the way up).
    attention: Heights of the feature maps that get self-attention; the middle always has it.
    dropout: Rate in [0, 1), active when ``train``; needs an rng named "dropout".
    out_channels: Channels of the output.
    in_channels: Channels of the input; None means ``out_channels``.
    num_classes: Number of classes, or None for no conditioning. Label ``num_classes`` is the null
      class: no label, for classifier-free guidance.
    groups: Groups of every GroupNorm.
    dtype: Type of the computation, e.g. ``jnp.bfloat16``. Parameters, GroupNorm statistics, softmax
      and output stay float32.
    remat: Recompute each residual block in the backward pass to save memory.
  """

  channels: int = 128
  multipliers: tuple[int, ...] = (1, 2, 2, 2)
  blocks: int = 2
  attention: tuple[int, ...] = (16,)
  dropout: float = 0.1
  out_channels: int = 3
  in_channels: int | None = None
  num_classes: int | None = None
  groups: int = 32
  dtype: Any = jnp.float32
  remat: bool = False

  def _check(self, x_t, t, labels):
    if (
      self.channels < 4 or self.channels % 2 or any(self.channels * m % self.groups for m in self.multipliers)
    ):
      raise ValueError(
        f"channels must be even, at least 4, and every width a multiple of groups = {self.groups}, got"
        f" channels {self.channels} with multipliers {self.multipliers}"
      )
    expected = self.out_channels if self.in_channels is None else self.in_channels
    if x_t.ndim != 4 or x_t.shape[-1] != expected:
      raise ValueError(f"x_t must be [B, H, W, {expected}], got {x_t.shape}")
    factor = 2 ** (len(self.multipliers) - 1)
    if x_t.shape[1] % factor or x_t.shape[2] % factor:
      raise ValueError(
        f"image height and width must be multiples of {factor} for {len(self.multipliers)} levels,"
        f" got {x_t.shape[1]}x{x_t.shape[2]}"
      )
    heights = [x_t.shape[1] >> level for level in range(len(self.multipliers))]
    if missing := set(self.attention) - set(heights):
      raise ValueError(
        f"attention at heights {sorted(missing)}, but an image {x_t.shape[1]} high has levels of {heights}"
      )
    if t.ndim > 1 or (t.ndim == 1 and t.shape[0] not in (1, x_t.shape[0])):
      raise ValueError(f"t must be a scalar or [{x_t.shape[0]}], got shape {t.shape}")
    if labels is not None and self.num_classes is None:
      raise ValueError("labels were given to a U-Net without num_classes")
    if labels is not None and labels.shape != x_t.shape[:1]:
      raise ValueError(f"labels must be [{x_t.shape[0]}], got {labels.shape}")

  @nn.compact
  def __call__(self, x_t, t, labels=None, train: bool = False):
    """Applies the network.

    Args:
      x_t: Noisy images, ``f32[B, H, W, C]``; H and W multiples of ``2 ** (levels - 1)``.
      t: Noise level, ``i32[]`` or ``i32[B]`` in [1, T]; floats are allowed. Traced.
      labels: ``i32[B]`` in ``[0, num_classes]``; None is the null class throughout.
      train: Whether dropout is active. Static.

    Returns:
      ``f32[B, H, W, out_channels]``.

    Raises:
      ValueError: At trace time, if the configuration does not fit the input.
    """
    t = jnp.asarray(t)
    self._check(x_t, t, labels)
    dense = lambda name: nn.Dense(4 * self.channels, dtype=self.dtype, kernel_init=_init(), name=name)
    Block = nn.remat(ResidualBlock, static_argnums=(3,)) if self.remat else ResidualBlock

    embedding = time_embedding(jnp.broadcast_to(t, x_t.shape[:1]), self.channels)
    embedding = dense("time_2")(nn.swish(dense("time_1")(embedding.astype(self.dtype))))
    if self.num_classes is not None:
      null = jnp.full(x_t.shape[:1], self.num_classes)
      embed = nn.Embed(self.num_classes + 1, 4 * self.channels, dtype=self.dtype, name="classes")
      embedding = embedding + embed(null if labels is None else labels)

    def block(h, multiplier, name):
      width = self.channels * multiplier
      return Block(width, self.groups, self.dropout, self.dtype, name=name)(h, embedding, train)

    def attend(h, name):
      return Attention(self.groups, self.dtype, name=name)(h)

    h = _conv(self.channels, dtype=self.dtype, name="conv_in")(x_t.astype(self.dtype))
    skips = [h]
    last = len(self.multipliers) - 1

    for level, multiplier in enumerate(self.multipliers):
      for i in range(self.blocks):
        h = block(h, multiplier, f"down_{level}_block_{i}")
        if h.shape[1] in self.attention:
          h = attend(h, f"down_{level}_attention_{i}")
        skips.append(h)
      if level != last:
        halve = _conv(
          h.shape[-1],
          dtype=self.dtype,
          name=f"down_{level}_downsample",
          strides=2,
          padding=((0, 1), (0, 1)),
        )
        h = halve(h)
        skips.append(h)

    h = block(h, self.multipliers[-1], "middle_block_0")
    h = attend(h, "middle_attention")
    h = block(h, self.multipliers[-1], "middle_block_1")

    for level, multiplier in reversed(list(enumerate(self.multipliers))):
      for i in range(self.blocks + 1):
        h = block(jnp.concatenate([h, skips.pop()], axis=-1), multiplier, f"up_{level}_block_{i}")
        if h.shape[1] in self.attention:
          h = attend(h, f"up_{level}_attention_{i}")
      if level != 0:
        h = h.repeat(2, axis=1).repeat(2, axis=2)
        h = _conv(h.shape[-1], dtype=self.dtype, name=f"up_{level}_upsample")(h)

    h = nn.swish(_norm(h, self.groups, self.dtype, "norm_out"))
    h = _conv(self.out_channels, dtype=self.dtype, scale=0, name="conv_out")(h)
    return h.astype(_at_least_float32(self.dtype))
