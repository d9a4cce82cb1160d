"""3x3 convolutions in 36 products for 4x4 outputs, where the definition takes 144 (Winograd; Toom and Cook).

Polynomials of degrees 2 and 3 are multiplied by their values at six points, infinity among them. Read
backwards, that makes four outputs of a filter ``g`` of three taps from six inputs ``d``,

    y = A [(G g) * (B d)]        in one dimension,
    y = A [(G g G') * (B d B')] A'   in two,

and summed over the channels of the input the elementwise product is 36 products of matrices. The transforms
by A, B and G are products of matrices too, of 16 or 36 rows: sums of slices would be slower than what they
save. Lavin and Gray, arXiv:1509.09308.
"""

import jax
import jax.numpy as jnp
import numpy as np

_OUTPUTS, _TAPS = 4, 3
_SIZE = _OUTPUTS + _TAPS - 1
_POINTS = (0.0, 0.6, -0.6, 1.5, -1.5)
"""Of 0, +-a, +-b these lose least in float32: 1.5 times the rounding of the definition; 1, 2 three times."""


def bilinear() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """``(A: [4, 6], G: [6, 3], B: [6, 6])`` in float64."""
  values = lambda count: np.vstack([np.vander(_POINTS, count, increasing=True), np.eye(count)[-1]])
  inputs = np.linalg.inv(values(_SIZE)).T
  largest = np.abs(inputs).max(axis=1, keepdims=True)  # rows of B are brought to 1: no product is much larger
  return values(_OUTPUTS).T, values(_TAPS) * largest, inputs / largest


def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """A 3x3 convolution with zero padding.

  Args:
    x: Images, ``[B, H, W, C]``, float32 or wider. Traced.
    kernel: ``[3, 3, C, D]``, of the same dtype. Traced.

  Returns:
    ``[B, H, W, D]``.

  Raises:
    ValueError: If the kernel is not 3x3 over the channels of ``x``.

  References:
    Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, arXiv:1509.09308.
  """
  if x.ndim != 4 or kernel.ndim != 4 or kernel.shape[:3] != (_TAPS, _TAPS, x.shape[-1]):
    raise ValueError(f"x must be [B, H, W, C] and kernel [3, 3, C, D], got {x.shape} and {kernel.shape}")
  # Everything as products of matrices: XLA's CPU compiler would transpose the operands of other products.
  flat = lambda array: array.reshape(array.shape[0] * array.shape[1], -1)
  output, weights, inputs = (jnp.asarray(np.kron(m, m), x.dtype) for m in bilinear())
  tiles = _tiles(x)
  batch, rows, columns, channels = tiles.shape[2:]
  d = (inputs @ flat(tiles)).reshape(_SIZE * _SIZE, -1, channels)
  g = (weights @ flat(kernel)).reshape(_SIZE * _SIZE, channels, -1)
  y = output @ (d @ g).reshape(_SIZE * _SIZE, -1)
  y = y.reshape(_OUTPUTS, _OUTPUTS, batch, rows, columns, -1).transpose(2, 3, 0, 4, 1, 5)
  found: jax.Array = y.reshape(batch, _OUTPUTS * rows, _OUTPUTS * columns, -1)[:, : x.shape[1], : x.shape[2]]
  return found


def _tiles(x: jax.Array) -> jax.Array:
  """Tiles that overlap by two pixels: ``[6, 6, B, rows, columns, C]``, the first from pixel -1 on."""
  batch, height, width, channels = x.shape
  rows, columns = -(-height // _OUTPUTS), -(-width // _OUTPUTS)
  after = lambda count, size: (count + 1) * _OUTPUTS - 1 - size
  x = jnp.pad(x, ((0, 0), (1, after(rows, height)), (1, after(columns, width)), (0, 0)))
  x = x.reshape(batch, rows + 1, _OUTPUTS, columns + 1, _OUTPUTS, channels).transpose(2, 4, 0, 1, 3, 5)
  overlap = _TAPS - 1
  x = jnp.concatenate([x[:, :, :, :-1], x[:overlap, :, :, 1:]], axis=0)
  return jnp.concatenate([x[:, :, :, :, :-1], x[:, :overlap, :, :, 1:]], axis=1)
