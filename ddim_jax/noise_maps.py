r"""Editing real data by the noise of the stochastic process: exact for any network and any guidance.

DDIM inversion asks the network on the way up, and with guidance it does not lead back to the data. Noise maps
need no network on the way up: samples at every level are drawn around the data, and what a stochastic step
(``eta`` above 0) would have had to add to lead from each to the next is recorded:

    d_i = x_s - (alpha_s x0_hat + sigma_s sqrt(1 - f^2) eps_hat),   sigma_s f z in `ddim_jax.ddim_step`

Following the same steps with the recorded ``d`` gives the data back, whatever the network. Following them
with another class, prompt or weight changes what the network changes and keeps the rest.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ddim_jax.checks import check_decreasing, check_number, known
from ddim_jax.denoisers import Denoiser
from ddim_jax.parameterisation import Prediction
from ddim_jax.process import add_noise
from ddim_jax.sampling import check_chain
from ddim_jax.schedules import Schedule, coefficients
from ddim_jax.seeds import check_keys, draw_noise
from ddim_jax.solvers import ddim_step


class NoiseMaps(NamedTuple):
  """The code of a batch of data.

  Attributes:
    x_T: Sample at level ``ts[0]``, ``f32[B, ...]``.
    moves: What each step adds to its mean, ``f32[S, B, ...]``, in data units: ``sigma_s f z``; that of a step
      to level 0, where a step draws no noise, is what the network misses of the data.
  """

  x_T: jax.Array
  moves: jax.Array


def _check(
  denoise: Any, x: jax.Array, ts: ArrayLike, eta: Any, schedule: Schedule, name: str
) -> tuple[Denoiser, jax.Array]:
  found, values = check_chain(denoise, schedule, x, ts, name), known(eta)
  check_number("eta", eta)
  if values is not None and (values.ndim or not 0 < values <= 1):
    raise ValueError(f"eta must be in (0, 1], got {eta}: without noise there are no noise maps")
  check_decreasing(ts, schedule.T)
  return found


def encode_noises(
  key: jax.Array,
  denoise: Denoiser,
  schedule: Schedule,
  x0: jax.Array,
  ts: ArrayLike,
  *,
  eta: float | jax.Array = 1.0,
  independent: bool = True,
) -> NoiseMaps:
  """Turns data into noise maps, from which `decode_noises` with the same denoiser gives it back.

  Exact to rounding for every ``eta``, guidance weight and class: rounding does not add up, because each step
  is recorded from where the one before really led.

  Args:
    key: One key, or one per image (``key[B]``); the same gives the same maps. Traced.
    denoise: ``(x_t, t) -> Prediction`` of what the data show: their class, with or without guidance.
    schedule: Noise schedule. Traced.
    x0: Data, ``f32[B, ...]``, in data units.
    ts: Decreasing levels ``[S+1]``, usually to 0; values traced, S static. Fewer of them, from
      `ddim_jax.timesteps.cut`, keep more of the data.
    eta: Dimensionless in (0, 1], as in `ddim_jax.ddim_step`; smaller makes recorded noise larger relative to
      that of a step. Traced.
    independent: Draw the sample at every level with its own noise [1], so that the maps vary more and edits
      keep the layout better; else one after the other from the process given the data [2]. Static.

  Returns:
    The maps; S times the size of the data.

  Raises:
    ValueError: On a wrong shape or dtype, or if values that are not traced are out of range: levels that do
      not decrease, ``eta``.

  References:
    [1] Huberman-Spiegelglas et al., An Edit Friendly DDPM Noise Space, arXiv:2304.06140.
    [2] Wu and De la Torre, CycleDiffusion, arXiv:2210.05559.
  """
  (denoise, ts), keys = _check(denoise, x0, ts, eta, schedule, "x0"), check_keys(key, x0.shape)
  draw = lambda number: draw_noise(keys, number, x0.shape, x0.dtype)

  def step(x_t: jax.Array, inputs: Any) -> Any:
    number, t, s = inputs
    if independent:
      wanted = add_noise(schedule, x0, draw(number), s)
    else:
      alpha, sigma = coefficients(schedule, t, x_t)
      true = Prediction(x0, (x_t - alpha * x0) / sigma)
      wanted = ddim_step(schedule, true, t, s, eta=eta, z=draw(number))
    mean = ddim_step(schedule, denoise(x_t, t), t, s, eta=eta)
    move = wanted - mean
    return mean + move, move

  x_T = add_noise(schedule, x0, draw(0), ts[0])
  numbers = jnp.arange(1, ts.shape[0])
  _, moves = jax.lax.scan(step, x_T, (numbers, ts[:-1], ts[1:]))
  return NoiseMaps(x_T, moves)


def decode_noises(
  denoise: Denoiser, schedule: Schedule, maps: NoiseMaps, ts: ArrayLike, *, eta: float | jax.Array = 1.0
) -> jax.Array:
  """Follows recorded noise, with the denoiser of the data or of what they are to become.

  Args:
    denoise: ``(x_t, t) -> Prediction``; that of `encode_noises` gives the data back.
    schedule: As there. Traced.
    maps: From `encode_noises`.
    ts: As there, ``[S+1]``.
    eta: As there. Traced.

  Returns:
    Data, ``f32[B, ...]``, at level ``ts[-1]``.

  Raises:
    ValueError: At trace time, if there are not as many moves as steps, or as `encode_noises`.
  """
  denoise, ts = _check(denoise, maps.x_T, ts, eta, schedule, "maps.x_T")
  if maps.moves.shape != (ts.shape[0] - 1, *maps.x_T.shape):
    raise ValueError(
      f"maps.moves must be one move for each of {ts.shape[0] - 1} steps, of shape {maps.x_T.shape};"
      f" got {maps.moves.shape}"
    )

  def step(x_t: jax.Array, inputs: Any) -> Any:
    t, s, move = inputs
    return ddim_step(schedule, denoise(x_t, t), t, s, eta=eta) + move, None

  return jax.lax.scan(step, maps.x_T, (ts[:-1], ts[1:], maps.moves))[0]
