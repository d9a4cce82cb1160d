"""The Inception network of the FID, in Flax.

The network of 2015 (Szegedy et al., arXiv:1512.00567) as TensorFlow ran it, which FID values depend on: mean
pools do not count their padding, the last block has a maximum pool, there are 1008 logits. Batch
normalisation is folded into the convolutions. Parameters: see `inception_weights`; resizing: see `resize`.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ddim_jax.metrics.resize import SIDE, pytorch_fid

FEATURES, LOGITS = 2048, 1008
_max_pool = partial(nn.max_pool, window_shape=(3, 3), strides=(2, 2))
_wide_max_pool = partial(nn.max_pool, window_shape=(3, 3), padding="SAME")
_mean_pool = partial(nn.avg_pool, window_shape=(3, 3), padding="SAME", count_include_pad=False)


class Inception(nn.Module):
  """Images to features and logits."""

  @nn.compact
  def __call__(self, x: jax.Array) -> Any:
    """Applies the network.

    Args:
      x: ``f32[B, 299, 299, 3]`` in [-1, 1].

    Returns:
      ``(features: f32[B, 2048], logits: f32[B, 1008])``.

    Raises:
      ValueError: At trace time, if the images have another shape.
    """
    if x.ndim != 4 or x.shape[1:] != (SIDE, SIDE, 3):
      raise ValueError(f"x must be [B, {SIDE}, {SIDE}, 3], got {x.shape}")

    def conv(
      x: jax.Array,
      name: str,
      width: int,
      size: tuple[int, int] = (1, 1),
      stride: int = 1,
      padding: Any = "SAME",
    ) -> jax.Array:
      # float32 throughout, also on devices that would round to bfloat16
      layer = nn.Conv(
        width, size, strides=stride, padding=padding, precision=jax.lax.Precision.HIGHEST, name=name
      )
      return nn.relu(layer(x))

    def chain(x: jax.Array, block: str, *layers: Any) -> jax.Array:
      """Convolutions one after another, each (name, width, size) of one block."""
      for name, width, size in layers:
        x = conv(x, f"{block}_{name}", width, size)
      return x

    def block_a(x: jax.Array, name: str, pooled: int) -> jax.Array:
      return jnp.concatenate([
        chain(x, name, ("branch1x1", 64, (1, 1))),
        chain(x, name, ("branch5x5_1", 48, (1, 1)), ("branch5x5_2", 64, (5, 5))),
        chain(
          x, name, ("branch3x3dbl_1", 64, (1, 1)), ("branch3x3dbl_2", 96, (3, 3)),
          ("branch3x3dbl_3", 96, (3, 3)),
        ),
        chain(_mean_pool(x), name, ("branch_pool", pooled, (1, 1))),
      ], axis=-1)  # fmt: skip

    def block_b(x: jax.Array, name: str) -> jax.Array:
      double = chain(x, name, ("branch3x3dbl_1", 64, (1, 1)), ("branch3x3dbl_2", 96, (3, 3)))
      return jnp.concatenate([
        conv(x, f"{name}_branch3x3", 384, (3, 3), 2, "VALID"),
        conv(double, f"{name}_branch3x3dbl_3", 96, (3, 3), 2, "VALID"),
        _max_pool(x),
      ], axis=-1)  # fmt: skip

    def block_c(x: jax.Array, name: str, width: int) -> jax.Array:
      row, column, last = (1, 7), (7, 1), 192
      return jnp.concatenate([
        chain(x, name, ("branch1x1", last, (1, 1))),
        chain(
          x, name, ("branch7x7_1", width, (1, 1)), ("branch7x7_2", width, row), ("branch7x7_3", last, column)
        ),
        chain(
          x, name, ("branch7x7dbl_1", width, (1, 1)), ("branch7x7dbl_2", width, column),
          ("branch7x7dbl_3", width, row), ("branch7x7dbl_4", width, column), ("branch7x7dbl_5", last, row),
        ),
        chain(_mean_pool(x), name, ("branch_pool", last, (1, 1))),
      ], axis=-1)  # fmt: skip

    def block_d(x: jax.Array, name: str) -> jax.Array:
      single = chain(x, name, ("branch3x3_1", 192, (1, 1)))
      wide = chain(
        x, name, ("branch7x7x3_1", 192, (1, 1)), ("branch7x7x3_2", 192, (1, 7)),
        ("branch7x7x3_3", 192, (7, 1)),
      )  # fmt: skip
      return jnp.concatenate([
        conv(single, f"{name}_branch3x3_2", 320, (3, 3), 2, "VALID"),
        conv(wide, f"{name}_branch7x7x3_4", 192, (3, 3), 2, "VALID"),
        _max_pool(x),
      ], axis=-1)  # fmt: skip

    def block_e(x: jax.Array, name: str, pool: Callable[..., jax.Array]) -> jax.Array:
      single = chain(x, name, ("branch3x3_1", 384, (1, 1)))
      double = chain(x, name, ("branch3x3dbl_1", 448, (1, 1)), ("branch3x3dbl_2", 384, (3, 3)))
      return jnp.concatenate([
        chain(x, name, ("branch1x1", 320, (1, 1))),
        conv(single, f"{name}_branch3x3_2a", 384, (1, 3)),
        conv(single, f"{name}_branch3x3_2b", 384, (3, 1)),
        conv(double, f"{name}_branch3x3dbl_3a", 384, (1, 3)),
        conv(double, f"{name}_branch3x3dbl_3b", 384, (3, 1)),
        chain(pool(x), name, ("branch_pool", 192, (1, 1))),
      ], axis=-1)  # fmt: skip

    x = conv(x, "Conv2d_1a_3x3", 32, (3, 3), 2, "VALID")
    x = conv(x, "Conv2d_2a_3x3", 32, (3, 3), 1, "VALID")
    x = _max_pool(conv(x, "Conv2d_2b_3x3", 64, (3, 3)))
    x = conv(x, "Conv2d_3b_1x1", 80)
    x = _max_pool(conv(x, "Conv2d_4a_3x3", 192, (3, 3), 1, "VALID"))
    for name, pooled in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
      x = block_a(x, name, pooled)
    x = block_b(x, "Mixed_6a")
    for name, width in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
      x = block_c(x, name, width)
    x = block_d(x, "Mixed_7a")
    x = block_e(x, "Mixed_7b", _mean_pool)
    x = block_e(x, "Mixed_7c", _wide_max_pool)
    features = jnp.mean(x, axis=(1, 2))
    return features, nn.Dense(LOGITS, precision=jax.lax.Precision.HIGHEST, name="fc")(features)


def extractor(
  params: Mapping[str, Any], resize: Callable[[jax.Array], jax.Array] | None = None
) -> Callable[[jax.Array], tuple[jax.Array, jax.Array]]:
  """``images -> (features, logits)`` of the network.

  Args:
    params: From `inception_weights.load`.
    resize: None takes ``u8[B, H, W, 1 or 3]`` of any size, as pytorch-fid does. For clean-fid, give
      `resize.centred`, and images that `resize.clean_fid` has resized on the host.

  Returns:
    A function that may be traced; parameters are constants of it.
  """
  resize = pytorch_fid if resize is None else resize
  apply: Callable[..., Any] = Inception().apply
  return lambda images: apply({"params": params}, resize(images))
