"""Depthwise convolutions as sums of shifted images; XLA's CPU compiler computes the operation slowly."""

import functools

import jax
import jax.numpy as jnp


def convolve(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
  """A convolution of each channel by itself, padded so that stride 1 keeps the size ("SAME").

  Args:
    x: Images, ``[B, H, W, C]``. Traced.
    kernel: ``[K, K, 1, C]``, of the same dtype. Traced.
    stride: Pixels between two outputs. Static.

  Returns:
    ``[B, ceil(H / stride), ceil(W / stride), C]``.

  Raises:
    ValueError: If the kernel is not square, or not of one channel for each of ``x``.
  """
  size = kernel.shape[0]
  if x.ndim != 4 or kernel.shape != (size, size, 1, x.shape[-1]):
    raise ValueError(f"x must be [B, H, W, C] and kernel [K, K, 1, C], got {x.shape} and {kernel.shape}")
  spans = [(-(-side // stride) - 1) * stride + 1 for side in x.shape[1:3]]
  missing = [max(span - 1 + size - side, 0) for span, side in zip(spans, x.shape[1:3], strict=True)]
  padded = jnp.pad(x, ((0, 0), *((both // 2, both - both // 2) for both in missing), (0, 0)))
  shifted = lambda i, j: padded[:, i : i + spans[0] : stride, j : j + spans[1] : stride]
  taps = [(i, j) for i in range(size) for j in range(size)]
  return functools.reduce(jnp.add, (shifted(i, j) * kernel[i, j][None, None] for i, j in taps))
