"""The 3x3 convolution as XLA has it, and that after nearest upsampling."""

import jax
import jax.numpy as jnp


def direct(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """XLA's own."""
  return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def upsampled(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Nearest upsampling by 2, then a 3x3 convolution with zero padding, in 16 products per pixel, not 36.

  The three rows of the window of an output row lie on two rows of the small image: the window of row 2i on
  i-1, i, i, that of row 2i+1 on i, i, i+1. The rows of the kernel that meet the same row are summed, and
  likewise its columns: four 2x2 convolutions, one for each parity of row and column. In float32 the result is
  that of the two operations up to rounding.

  Args:
    x: Images, ``[B, H, W, C]``. Traced.
    kernel: ``[3, 3, C, D]``, of the same dtype. Traced.

  Returns:
    ``[B, 2H, 2W, D]``.

  Raises:
    ValueError: If the kernel is not 3x3 over the channels of ``x``.
  """
  if x.ndim != 4 or kernel.ndim != 4 or kernel.shape[:3] != (3, 3, x.shape[-1]):
    raise ValueError(f"x must be [B, H, W, C] and kernel [3, 3, C, D], got {x.shape} and {kernel.shape}")

  def parity(i: int, j: int) -> jax.Array:
    rows = _merge(_merge(kernel, 0, i), 1, j)
    padding = ((1 - i, i), (1 - j, j))
    return jax.lax.conv_general_dilated(x, rows, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC"))

  y = jnp.stack([jnp.stack([parity(i, j) for j in (0, 1)], axis=3) for i in (0, 1)], axis=2)
  batch, height, _, width, _, channels = y.shape
  return y.reshape(batch, 2 * height, 2 * width, channels)


def _merge(kernel: jax.Array, axis: int, parity: int) -> jax.Array:
  """The two rows (or columns) of the kernel for even or odd outputs."""
  first, second, third = jnp.split(kernel, 3, axis)
  return jnp.concatenate([first + second, third] if parity else [first, second + third], axis)
