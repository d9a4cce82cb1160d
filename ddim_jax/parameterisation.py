r"""What a network predicts, and how to read clean data and noise out of it.

With :math:`x_t = \alpha x_0 + \sigma\epsilon` and :math:`\alpha^2 + \sigma^2 = 1`:

    EPS   target eps                       x0  = (x_t - sigma * output) / alpha
    X0    target x0                        eps = (x_t - alpha * output) / sigma
    V     target alpha * eps - sigma * x0  x0  = alpha * x_t - sigma * output
                                           eps = sigma * x_t + alpha * output
    FLOW  target eps - x0                  x0  = (x_t - sigma * output) / (alpha + sigma)
                                           eps = (x_t + alpha * output) / (alpha + sigma)
    EDM   see `edm`

EPS is the choice of DDPM and DDIM; V is from Salimans and Ho, arXiv:2202.00512, appendix D. FLOW is the
velocity of rectified flow, Liu et al., arXiv:2209.03003; EDM the preconditioned output of Karras et al.,
arXiv:2206.00364. In training without a weighting, each is the loss of its own paper.

Some published networks also take their input in other coordinates: see `ddim_jax.paths`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


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
FLOW = Parameterisation(
  target=lambda x0, eps, alpha, sigma: eps - x0,
  decode=lambda output, x_t, alpha, sigma: Prediction(
    (x_t - sigma * output) / (alpha + sigma), (x_t + alpha * output) / (alpha + sigma)
  ),
)


def edm(sigma_data: float = 0.5) -> Parameterisation:
  r"""The preconditioning of EDM: an output of unit variance at every level.

  In EDM's variables, x and the noise divided by alpha, :math:`D = c_\text{skip} x + c_\text{out} F`. Here,
  with :math:`n = \sqrt{\alpha^2 \sigma_d^2 + \sigma^2}`, the standard deviation of ``x_t``,

  .. math:: F = \frac{\sigma x_0 / \sigma_d - \alpha \sigma_d\, \epsilon}{n}, \qquad
    \hat x_0 = \frac{\sigma_d}{n} \Bigl(\frac{\alpha \sigma_d}{n} x_t + \sigma F\Bigr), \qquad
    \hat\epsilon = \frac{1}{n} \Bigl(\frac{\sigma}{n} x_t - \alpha \sigma_d F\Bigr).

  For :math:`\sigma_d = 1` it is ``V`` with the opposite sign.

  Args:
    sigma_data: Standard deviation of the data, in data units; positive.

  Raises:
    ValueError: If ``sigma_data`` is not positive.

  References:
    Table 1 and appendix B.6 of Karras et al., arXiv:2206.00364.
  """
  if not 0 < sigma_data < float("inf"):
    raise ValueError(f"sigma_data must be positive and finite, got {sigma_data}")
  sigma_data = float(sigma_data)  # numbers of numpy would widen what they meet

  def deviation(alpha: jax.Array, sigma: jax.Array) -> jax.Array:
    return jnp.sqrt((alpha * sigma_data) ** 2 + sigma**2)

  def target(x0: jax.Array, eps: jax.Array, alpha: jax.Array, sigma: jax.Array) -> jax.Array:
    return (sigma / sigma_data * x0 - alpha * sigma_data * eps) / deviation(alpha, sigma)

  def decode(output: jax.Array, x_t: jax.Array, alpha: jax.Array, sigma: jax.Array) -> Prediction:
    n = deviation(alpha, sigma)
    x0 = sigma_data / n * (alpha * sigma_data / n * x_t + sigma * output)
    return Prediction(x0, (sigma / n * x_t - alpha * sigma_data * output) / n)

  return Parameterisation(target, decode)


EDM = edm()
