"""A classifier of noisy images: the way down of a U-Net, and attention that gathers its smallest maps.

That of arXiv:2105.05233, for `ddim_jax.classifier_guide`.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ddim_jax.checks import check_floating
from ddim_jax.schedules import Level
from ddim_jax.unet.attention import Attention, attention
from ddim_jax.unet.embedding import of_level
from ddim_jax.unet.layers import ResidualBlock, Sinusoids, conv, conv3x3, group_norm, init
from ddim_jax.unet.operations import named


class AttentionPool(nn.Module):
  """What the mean of all pixels attends to among itself and them: ``[B, H, W, C] -> [B, features]``."""

  features: int
  head_dim: int
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    batch, channels = len(x), x.shape[-1]
    dense = lambda name, width=channels: nn.Dense(width, dtype=self.dtype, kernel_init=init(), name=name)
    h = x.reshape(batch, -1, channels)
    h = jnp.concatenate([h.mean(axis=1, keepdims=True), h], axis=1)
    place = nn.initializers.normal(channels**-0.5)
    h = h + self.param("positional", place, h.shape[1:], jnp.float32)[None].astype(h.dtype)
    heads = lambda h, name: dense(name)(h).reshape(batch, h.shape[1], -1, self.head_dim)
    gathered = attention(heads(h[:, :1], "q"), heads(h, "k"), heads(h, "v")).reshape(batch, channels)
    return dense("out", self.features)(gathered)


class Classifier(nn.Module):
  """Logits of the classes of noisy images.

  Attributes:
    num_classes: Number of classes.
    channels: Base width, a multiple of ``groups``, as are all widths.
    multipliers: Width of each level in units of ``channels``, perhaps fractions; the size halves between
      levels.
    blocks: Residual blocks a level.
    attention_levels: Numbers of the levels (0 is the first) with attention; the middle always has it.
    head_dim: Channels of a head of attention.
    scale_shift: As in `ddim_jax.UNet`.
    resample: Likewise: "conv" or "block".
    groups: Groups of every GroupNorm.
    time: Features of the level.
    embedding: Width of the embedding of the level; None means ``4 * channels``.
    eps: Epsilon of every GroupNorm.
    dtype: Type of the computation.
  """

  num_classes: int
  channels: int = 128
  multipliers: tuple[float, ...] = (1, 2, 3, 4)
  blocks: int = 2
  attention_levels: tuple[int, ...] = (1, 2, 3)
  head_dim: int = 64
  scale_shift: bool = True
  resample: str = "block"
  groups: int = 32
  time: Sinusoids = Sinusoids(cos_first=True, shift=0)
  embedding: int | None = None
  eps: float = 1e-5
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x_t: jax.Array, t: Level) -> jax.Array:
    """Applies the network.

    Args:
      x_t: Noisy images, ``f32[B, H, W, C]``, always of the size of the first; H and W multiples of
        ``2 ** (levels - 1)``.
      t: Noise level, ``i32[]`` or ``i32[B]`` in [1, T]. Traced.

    Returns:
      ``f32[B, num_classes]``.

    Raises:
      ValueError: At trace time, if the size does not fit.
    """
    check_floating("x_t", x_t)
    last = len(self.multipliers) - 1
    if x_t.ndim != 4 or x_t.shape[1] % 2**last or x_t.shape[2] % 2**last:
      raise ValueError(f"x_t must be [B, H, W, C] with H and W multiples of {2**last}, got {x_t.shape}")
    operations = named("auto").lowered
    embedding = of_level(self, jnp.broadcast_to(jnp.asarray(t), x_t.shape[:1]))

    def block(h: jax.Array, width: int, name: str, size: str = "same") -> jax.Array:
      layer = ResidualBlock(
        width, self.groups, 0.0, operations, self.dtype, self.eps, nn.swish, self.scale_shift, 1.0, size,
        name=name,
      )  # fmt: skip
      return layer(h, embedding, None)

    def attend(h: jax.Array, name: str) -> jax.Array:
      return Attention(self.groups, operations, self.dtype, self.eps, self.head_dim, name=name)(h)

    x = x_t.astype(self.dtype)
    h = conv3x3(self.channels, operations.convolve, dtype=self.dtype, name="conv_in")(x)
    for level, multiplier in enumerate(self.multipliers):
      for i in range(self.blocks):
        h = block(h, round(self.channels * multiplier), f"down_{level}_block_{i}")
        if level in self.attention_levels:
          h = attend(h, f"down_{level}_attention_{i}")
      if level != last and self.resample == "block":
        h = block(h, h.shape[-1], f"down_{level}_downsample", "half")
      elif level != last:
        name, padding = f"down_{level}_downsample", ((1, 1), (1, 1))
        h = conv(h.shape[-1], dtype=self.dtype, name=name, strides=2, padding=padding)(h)
    h = block(h, h.shape[-1], "middle_block_0")
    h = block(attend(h, "middle_attention"), h.shape[-1], "middle_block_1")
    h = nn.swish(group_norm(h, self.groups, self.eps, operations, self.dtype, "norm_out"))
    logits = AttentionPool(self.num_classes, self.head_dim, self.dtype, name="pool")(h)
    return logits.astype(jnp.float32)
