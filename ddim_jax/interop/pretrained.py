"""A network of another project, ready to use, and how to reproduce diffusers' own steps."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddim_jax.denoisers import Denoiser, as_denoiser
from ddim_jax.interop.schedulers import Inputs, as_it_is
from ddim_jax.parameterisation import Parameterisation, Prediction
from ddim_jax.schedules import Level, Schedule
from ddim_jax.solvers import Solver
from ddim_jax.solvers.base import Stepped
from ddim_jax.unet import UNet


class Pretrained(NamedTuple):
  """All that another project's files say.

  Attributes:
    model: The network.
    variables: ``{"params": ...}``, numpy float32.
    schedule: Noise schedule.
    parameterisation: What the network predicts.
    timesteps: ``S -> i32[S+1]``, or ``f64[S+1]`` where the files' spacing lies between whole levels. With
      ``set_alpha_to_one`` false or ``final_sigmas_type`` "sigma_min" they end at level 1 instead of 0.
    solver: What the files' scheduler is here: ``ddim()`` for DDIM and Euler, and so on.
    restrict: ``(denoise, schedule) -> Denoiser``: the files' clipping or thresholding of x0.
    config: The network's configuration, with the keys of a UNet2DModel.
    scheduler: The scheduler's, with the keys that its class in diffusers knows.
    inputs: ``(schedule, x_t, t) -> (x, level)``: what the network is given for a sample and its level. As
      they are for most; other coordinates for EDM and flow matching.
  """

  model: UNet
  variables: dict[str, Any]
  schedule: Schedule
  parameterisation: Parameterisation
  timesteps: Callable[[int], np.ndarray]
  solver: Solver
  restrict: Callable[[Denoiser, Schedule], Denoiser]
  config: dict[str, Any]
  scheduler: dict[str, Any]
  inputs: Inputs = as_it_is

  @property
  def own_solver(self) -> Solver | None:
    """The solver under the name of its class, where it is another than DDIM with an eta of one's choice.

    A DDPMScheduler is in the files of nearly every network, whatever is to draw from it: DDIM, with eta 1
    where it is to be DDPM.
    """
    kind = self.scheduler["_class_name"]
    plain = kind.startswith(("DDIM", "DDPM", "EulerDiscrete", "EDMEuler"))
    plain = plain or self.scheduler.get("stochastic_sampling") is False
    return None if plain else self.solver._replace(name=kind)

  def denoiser(self, variables: Any = None, schedule: Schedule | None = None, labels: Any = None) -> Denoiser:
    """The network as a denoiser, clipped as the files say; pass traced variables and schedule in ``jit``.

    Of a network that also predicts variances, twice as many channels out as in, it is the first half.
    """
    schedule = self.schedule if schedule is None else schedule
    output = self._output(variables, schedule, labels)
    network = lambda x, t: output(x, t)[..., : x.shape[-1]]
    return self.restrict(as_denoiser(network, schedule, self.parameterisation), schedule)

  def variance(
    self, variables: Any = None, schedule: Schedule | None = None, labels: Any = None
  ) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """The second half of such a network's channels, for `ddim_jax.ddpm`; arguments as of `denoiser`.

    ``solver`` has it already, with these variables as constants and without labels.
    """
    output = self._output(variables, self.schedule if schedule is None else schedule, labels)
    return lambda x, t: output(x, t)[..., x.shape[-1] :]

  def _output(self, variables: Any, schedule: Schedule, labels: Any) -> Any:
    variables = self.variables if variables is None else variables
    return lambda x, t: self.model.apply(variables, *self.inputs(schedule, x, t), labels)


def _keep_eps(restrict: Any) -> Any:
  """Restricts x0 and leaves eps as it was, so that the two no longer agree with x_t."""

  def restricted(denoise: Denoiser, schedule: Schedule) -> Denoiser:
    def inner(x_t: jax.Array, t: Level) -> Prediction:
      plain = denoise(x_t, t)
      return Prediction(restrict(lambda x, t: plain, schedule)(x_t, t).x0, plain.eps)

    return inner

  return restricted


def like_diffusers(pretrained: Pretrained, S: int) -> Pretrained:
  """The same with the two habits of diffusers' DDIMScheduler, for comparing images with it.

  It takes the level a step leads to as ``t - T // S``, whatever level the next step starts from
  (huggingface/diffusers#12633); the two differ for "linspace", and for "trailing" where S does not divide
  T. And where x0 is clipped or thresholded it keeps the eps of before. For other schedulers the result is
  what was given: they have neither habit, except that PNDMScheduler has the first for the same spacings.

  Args:
    pretrained: From `load_diffusers`.
    S: Number of steps, to be passed to ``timesteps`` as well.
  """
  if pretrained.scheduler.get("_class_name") not in ("DDIMScheduler", "DDIMParallelScheduler"):
    return pretrained
  stride = pretrained.schedule.T // S
  last = 0 if pretrained.scheduler["set_alpha_to_one"] else 1

  def step(
    denoise: Denoiser, schedule: Schedule, carry: Any, x_t: jax.Array, t: Level, s: Level, z: jax.Array
  ) -> Stepped:
    s = jnp.where(jnp.asarray(t) - stride >= 1, jnp.asarray(t) - stride, last)
    return pretrained.solver.step(denoise, schedule, carry, x_t, t, s, z)

  return pretrained._replace(
    solver=Solver(pretrained.solver.init, step), restrict=_keep_eps(pretrained.restrict)
  )
