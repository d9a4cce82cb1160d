"""The U-Net of DDPM and DDIM, in Flax linen, images as NHWC.

    x_t -> conv_in -> [level: blocks (+ attention) -> half the size] ... -> middle
        -> [level: blocks with skip connections (+ attention) -> twice the size] ... -> conv_out

With its defaults it is the CIFAR-10 network of DDPM (appendix B of arXiv:2006.11239) to the letter,
35.7 M parameters, initialisers included. The parameter tree does not depend on dtype, remat or conv.
"""

import zlib
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ddim_jax import schedules
from ddim_jax.cpu.recomputation import recomputed
from ddim_jax.schedules import Level
from ddim_jax.seeds import typed
from ddim_jax.unet.arguments import check_arguments
from ddim_jax.unet.attention import Attention
from ddim_jax.unet.embedding import embedded
from ddim_jax.unet.layers import (
  ResidualBlock,
  Sinusoids,
  conv,
  conv3x3,
  doubled,
  group_norm,
  halved,
  upsample,
)
from ddim_jax.unet.meshes import is_explicit, with_automatic_axes
from ddim_jax.unet.operations import named


class UNet(nn.Module):
  """Predicts noise (or whatever it is trained to) from a noisy image and its level.

  Presets: CIFAR-10 is the default; CelebA 64: ``multipliers=(1, 2, 2, 2, 4)``; LSUN and CelebA-HQ 256:
  ``multipliers=(1, 1, 2, 2, 4, 4), dropout=0.0``.

  Attributes:
    channels: Base width, even; a multiple of ``groups``, as are all widths.
    multipliers: Width of each level in units of ``channels``, perhaps fractions; the size halves
      between levels.
    blocks: Residual blocks a level on the way down (one more on the way up).
    attention: Heights of the feature maps that get self-attention; the middle always has it.
    dropout: Rate in [0, 1), active when ``train``.
    out_channels: Channels of the output.
    in_channels: Channels of the input; None means ``out_channels``.
    num_classes: Number of classes, or None for no conditioning. Label ``num_classes`` is the null
      class: no label, for classifier-free guidance.
    groups: Groups of every GroupNorm.
    dtype: Type of the computation, e.g. ``jnp.bfloat16``. Parameters, GroupNorm statistics, softmax
      and output stay float32.
    remat: Recompute each residual block in the backward pass to save memory. Reverse mode only (``grad``,
      ``vjp``): for ``jvp``, apply the same parameters with ``remat=False``.
    conv: What computes the 3x3 convolutions, all equal up to rounding: "direct", XLA's own; "winograd",
      with a quarter of the products; "auto", the latter in programs for a CPU where it is faster.
    time: Features of the level: `Sinusoids` or `RandomFourier`.
    embedding: Width of the embedding of the level; None means ``4 * channels``.
    eps: Epsilon of every GroupNorm.
    activation: Function after the norms of the residual blocks.
    scale_shift: The embedding scales and shifts the second norm of a block instead of being added.
    head_dim: Channels of a head of attention; None means ``heads``.
    heads: Heads of every attention; None means one. Not together with ``head_dim``.
    resample: What changes the size between levels: "conv", a convolution; "block", a residual block of both
      paths, as in guided-diffusion; "pool", means of 2x2 pixels and nearest neighbours, without parameters.
    down_padding: Padding of the convolutions that halve the size, one pair for each axis.
    attention_levels: ``(down, up)``: numbers of the levels (0 is the first) with attention, instead of
      the heights in ``attention``; then the network is the same for every image size.
    middle: Whether there are blocks in the middle.
    middle_attention: Whether they have attention.
    middle_groups: Groups of that attention's norm; None means ``groups``, 0 no norm.
    middle_divisor: What the sums in the middle are divided by.
    centre_input: The input is an image in [0, 1] that becomes ``2 * x - 1``.
    null_class: Whether there is a null class; without it labels must be given.
    condition_size: Numbers in the vector that each image is conditioned on, or None for no such conditioning.
      It is added to the embedding through two layers; that of no condition is learned. Of order 1, such as
      standardised.
    label_embedding: ``(labels, features, dense) -> [B, embedding]`` in place of the table of classes:
      ``features`` is that of a level, ``dense`` makes a layer of a name. Labels may be of any shape.
  """

  channels: int = 128
  multipliers: tuple[float, ...] = (1, 2, 2, 2)
  blocks: int = 2
  attention: tuple[int, ...] = (16,)
  dropout: float = 0.1
  out_channels: int = 3
  in_channels: int | None = None
  num_classes: int | None = None
  groups: int = 32
  dtype: Any = jnp.float32
  remat: bool = False
  conv: str = "auto"
  time: Any = Sinusoids()
  embedding: int | None = None
  eps: float = 1e-6
  activation: Callable[[jax.Array], jax.Array] = nn.swish
  scale_shift: bool = False
  head_dim: int | None = None
  heads: int | None = None
  resample: str = "conv"
  down_padding: tuple[tuple[int, int], ...] = ((0, 1), (0, 1))
  attention_levels: tuple[tuple[int, ...], tuple[int, ...]] | None = None
  middle: bool = True
  middle_attention: bool = True
  middle_groups: int | None = None
  middle_divisor: float = 1.0
  centre_input: bool = False
  null_class: bool = True
  label_embedding: Callable[..., jax.Array] | None = None
  condition_size: int | None = None

  @property
  def input_channels(self) -> int:
    """Channels of the input."""
    return self.out_channels if self.in_channels is None else self.in_channels

  def width(self, level: int) -> int:
    """Channels at a level."""
    return round(self.channels * self.multipliers[level])

  @nn.compact
  def __call__(
    self,
    x_t: jax.Array,
    t: Level,
    labels: jax.Array | None = None,
    train: bool = False,
    keys: jax.Array | None = None,
    conditions: jax.Array | None = None,
  ) -> jax.Array:
    """Applies the network.

    Args:
      x_t: Noisy images, ``f32[B, H, W, C]``; H and W multiples of ``2 ** (levels - 1)``.
      t: Noise level, ``i32[]`` or ``i32[B]`` in [1, T]; floats are allowed. Traced.
      labels: ``i32[B]`` in ``[0, num_classes]``; None is the null class throughout.
      train: Whether dropout is active. Static.
      keys: One random key for each image, ``[B]``, for its dropout, which then does not depend on the rest
        of the batch; None makes them from the rng "dropout".
      conditions: ``f32[B, condition_size]``; a row of NaN is no condition, as is None throughout.

    Returns:
      ``f32[B, H, W, out_channels]``.

    Raises:
      ValueError: At trace time, if the configuration does not fit the input.
    """
    keys = None if keys is None else typed(keys)
    check_arguments(self, x_t, t, labels, keys, conditions)
    t = jnp.asarray(t)
    if is_explicit(x_t):
      if not self.is_initializing():
        if train and self.dropout > 0 and keys is None:
          keys = jax.random.split(self.make_rng("dropout"), x_t.shape[0])
        return with_automatic_axes(self, x_t, t, labels, train, keys, conditions)
      x_t = jax.device_put(x_t, jax.NamedSharding(jax.typeof(x_t).sharding.mesh, jax.P()))
    t = jnp.broadcast_to(t, x_t.shape[:1])
    operations = named(self.conv)
    middle = len(self.multipliers) - 1
    heights = [x_t.shape[1] >> level for level in range(middle + 1)]
    by_height = tuple(level for level, height in enumerate(heights) if height in self.attention)
    attended_down, attended_up = self.attention_levels or (by_height, by_height)

    embedding = embedded(self, t, labels, conditions)
    active = train and self.dropout > 0
    if active and keys is None:
      keys = jax.random.split(self.make_rng("dropout"), x_t.shape[0])

    def dropout_keys(name: str) -> jax.Array | None:
      block_of = lambda key: jax.random.fold_in(key, zlib.crc32(name.encode()))
      return jax.vmap(block_of)(keys) if active else None

    def block(h: jax.Array, level: int, name: str, divisor: float = 1.0, size: str = "same") -> jax.Array:
      layer = ResidualBlock(
        self.width(level), self.groups, self.dropout, operations.lowered, self.dtype, self.eps,
        self.activation, self.scale_shift, divisor, size, name=name,
      )  # fmt: skip
      if not self.remat or self.is_initializing():
        return layer(h, embedding, dropout_keys(name))
      alone, variables = layer.unbind()
      by: Callable[..., Any] = lambda operations: alone.clone(operations=operations).apply
      found: jax.Array = jax.lax.platform_dependent(
        variables, h, embedding, dropout_keys(name),
        cpu=recomputed(by(operations.cpu)), default=jax.checkpoint(by(operations.default)),
      )  # fmt: skip
      return found

    def attend(h: jax.Array, name: str, groups: int = self.groups, divisor: float = 1.0) -> jax.Array:
      attention = Attention(
        groups, operations.lowered, self.dtype, self.eps, self.head_dim, divisor, self.heads, name=name
      )
      return attention(h)

    def halve(h: jax.Array, level: int) -> jax.Array:
      if self.resample == "pool":
        return halved(h)
      name, padding = f"down_{level}_downsample", self.down_padding
      if self.resample == "block":
        return block(h, level, name, size="half")
      return conv(h.shape[-1], dtype=self.dtype, name=name, strides=2, padding=padding)(h)

    def double(h: jax.Array, level: int) -> jax.Array:
      if self.resample == "pool":
        return doubled(h)
      name = f"up_{level}_upsample"
      if self.resample == "block":
        return block(h, level, name, size="twice")
      return upsample(h.shape[-1], dtype=self.dtype, name=name)(h)

    x = x_t.astype(self.dtype)
    conv_in = conv3x3(self.channels, operations.lowered.convolve, dtype=self.dtype, name="conv_in")
    h = conv_in(2 * x - 1 if self.centre_input else x)
    skips = [h]

    for level in range(middle + 1):
      for i in range(self.blocks):
        h = block(h, level, f"down_{level}_block_{i}")
        if level in attended_down:
          h = attend(h, f"down_{level}_attention_{i}")
        skips.append(h)
      if level != middle:
        h = halve(h, level)
        skips.append(h)

    if self.middle:
      h = block(h, middle, "middle_block_0", self.middle_divisor)
      if self.middle_attention:
        groups = self.groups if self.middle_groups is None else self.middle_groups
        h = attend(h, "middle_attention", groups, self.middle_divisor)
      h = block(h, middle, "middle_block_1", self.middle_divisor)

    for level in reversed(range(middle + 1)):
      for i in range(self.blocks + 1):
        h = block(jnp.concatenate([h, skips.pop()], axis=-1), level, f"up_{level}_block_{i}")
        if level in attended_up:
          h = attend(h, f"up_{level}_attention_{i}")
      if level != 0:
        h = double(h, level)

    h = nn.swish(group_norm(h, self.groups, self.eps, operations.lowered, self.dtype, "norm_out"))
    h = conv3x3(self.out_channels, operations.lowered.convolve, dtype=self.dtype, scale=0, name="conv_out")(h)
    result: jax.Array = self.time.output(h.astype(schedules.wide(self.dtype)), t)
    return result
