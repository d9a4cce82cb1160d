r"""What a network predicts, and how to read clean data and noise out of it.

With :math:`x_t = \alpha x_0 + \sigma\epsilon` and :math:`\alpha^2 + \sigma^2 = 1`:

    EPS   target eps                       x0  = (x_t - sigma * output) / alpha
    X0    target x0                        eps = (x_t - alpha * output) / sigma
    V     target alpha * eps - sigma * x0  x0  = alpha * x_t - sigma * output
                                           eps = sigma * x_t + alpha * output

EPS is the choice of DDPM and DDIM; V is from Salimans and Ho, arXiv:2202.00512, appendix D.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax


class Prediction(NamedTuple):
  """A denoiser's estimate, consistent with its input: ``x_t = alpha * x0 + sigma * eps``.

  Attributes:
    x0: Clean data, ``f32[B, ...]``, in data units.
    eps: The noise in ``x_t``, ``f32[B, ...]``, of unit variance.
  """

  x0: jax.Array
  eps: jax.Array


class Parameterisation(NamedTuple):
  """The meaning of a network's output, as a pair of functions that invert each other.

  Attributes:
    target: ``(x0, eps, alpha, sigma) -> output``: what the network is trained towards.
    decode: ``(output, x_t, alpha, sigma) -> Prediction``: affine in ``output``.
  """

  target: Callable[..., jax.Array]
  decode: Callable[..., Prediction]


EPS = Parameterisation(
  target=lambda x0, eps, alpha, sigma: eps,
  decode=lambda output, x_t, alpha, sigma: Prediction((x_t - sigma * output) / alpha, output),
)
X0 = Parameterisation(
  target=lambda x0, eps, alpha, sigma: x0,
  decode=lambda output, x_t, alpha, sigma: Prediction(output, (x_t - alpha * output) / sigma),
)
V = Parameterisation(
  target=lambda x0, eps, alpha, sigma: alpha * eps - sigma * x0,
  decode=lambda output, x_t, alpha, sigma: Prediction(
    alpha * x_t - sigma * output, sigma * x_t + alpha * output
  ),
)
