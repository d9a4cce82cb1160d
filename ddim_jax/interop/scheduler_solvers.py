"""The solver that a diffusers scheduler is, with its rules for the last steps.

DDIM, DDIMParallel, DDIMInverse, EulerDiscrete   ddim()
EDMEuler, FlowMatchEulerDiscrete                 ddim(); the latter also with all noise drawn anew
EulerAncestralDiscrete                           ddim(1.0)
DDPM, DDPMParallel                               ddpm(variance_type)
PNDM                                             plms() with skip_prk_steps, else pndm()
DPMSolverMultistep, its Inverse, EDMDPM...       dpm_solver_pp(solver_order, curvature=0.5)
DPMSolverSinglestep                              dpm_solver_pp_singlestep(solver_order)
UniPCMultistep                                   unipc(solver_order)
DEISMultistep                                    deis(solver_order)
SASolver                                         sa_solver(tau)
HeunDiscrete                                     heun()
LMSDiscrete                                      lms()
KDPM2Discrete, KDPM2AncestralDiscrete            dpm_solver_2(), ancestral(dpm_solver_2())
DPMSolverSDE                                     dpm_solver_pp_sde()
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ddim_jax.denoisers import Denoiser
from ddim_jax.interop.scheduler_defaults import choose, refuse
from ddim_jax.interop.spacings import Spacing
from ddim_jax.process import add_noise
from ddim_jax.schedules import Level, Schedule
from ddim_jax.solvers import (
  Solver,
  ancestral,
  ddim,
  ddpm,
  deis,
  dpm_solver_2,
  dpm_solver_pp,
  dpm_solver_pp_sde,
  dpm_solver_pp_singlestep,
  heun,
  lms,
  plms,
  pndm,
  sa_solver,
  unipc,
)
from ddim_jax.solvers.base import Limit, Stepped

FEW = 14
"""diffusers lowers the order of the last steps up to so many steps; above, they are short."""
MANY = 200
"""Largest number of steps for which the last ones are recognised where they always are of lower order."""
CYCLES = 20
"""Largest number of steps for which a singlestep sequence may be entered midway and keep its cycle: in longer
ones, steps of different sequences look alike."""
_FOREIGN = dict.fromkeys(("midpoint", "logrho", "bh1", "bh2"), "midpoint") | {"heun": "heun"}


def limit_of_last(levels: Spacing, orders: Callable[[int], dict[int, int]], most: int) -> Limit | None:
  """The limit that lowers the order of some steps of a spacing's sequences, such as the last.

  A solver does not know the number of steps; but a step (t, s) of a sequence tells which it belongs to.

  Args:
    levels: The spacing.
    orders: By number of steps S, the highest order by the number of steps left, this one included.
    most: Largest S that is looked at.
  """
  rows = []
  for S in range(1, most + 1):
    rules = {left: order for left, order in orders(S).items() if left <= S}
    if not rules:
      continue
    try:
      ts = levels(S)
    except ValueError:  # more steps than there are levels
      break
    rows += [(ts[-left - 1], ts[-left], order) for left, order in rules.items() if left < len(ts)]
  if not rows:
    return None
  table = np.array(rows, np.float32)

  def limit(t: Level, s: Level) -> jax.Array:
    left, reached = (jnp.asarray(level).astype(jnp.float32) for level in (t, s))
    same = (jnp.abs(left - table[:, 0]) < 1e-3) & (jnp.abs(reached - table[:, 1]) < 1e-3)
    return jnp.min(jnp.where(same, table[:, 2], FEW)).astype(jnp.int32)

  return limit


def _dpm_limit(config: Any, levels: Any) -> Limit | None:
  """Of DPM-Solver++: below 15 steps the last is of order 1 and the one before of order 2 at most."""
  lowered, first = config["lower_order_final"], config.get("euler_at_final", False)
  if config["final_sigmas_type"] == "zero":  # a step to level 0 is of order 1 anyway
    rules = lambda S: {2: 2} if lowered and S <= FEW and config["solver_order"] > 2 else {}
  else:
    rules = lambda S: {1: 1, 2: 2} if lowered and S <= FEW else ({1: 1} if first else {})
  if config["solver_order"] < 2:
    return None
  return limit_of_last(levels, rules, MANY if first else FEW)


def dpm(config: dict[str, Any], levels: Spacing) -> Solver:
  """DPMSolverMultistepScheduler and EDMDPMSolverMultistepScheduler."""
  kinds = ("dpmsolver++", "sde-dpmsolver++", "dpmsolver", "deis")
  kind, order = choose(config, "algorithm_type", {k: k for k in kinds}), config["solver_order"]
  exact = choose(config, "solver_type", _FOREIGN) == "heun"
  limit = _dpm_limit(config, levels)
  if kind == "dpmsolver":
    if order == 1:
      return ddim()
    if order == 2 and exact:
      return deis(2, limit=limit)
    refuse(config, {"algorithm_type": 'for orders above 1 only with order 2 and solver_type "heun"'})
  eta = 1.0 if kind == "sde-dpmsolver++" else 0.0
  if eta and order > 2:
    refuse(config, {"algorithm_type": "order 3 of diffusers is not consistent: use solver_order 2"})
  return dpm_solver_pp(order, eta, 0.5, exact=exact, limit=limit)


def singlestep(config: dict[str, Any], levels: Spacing) -> Solver:
  """DPMSolverSinglestepScheduler."""
  kinds: dict[str, float] = {"dpmsolver++": 0.0, "sde-dpmsolver++": 1.0, "deis": 0.0}
  eta, order = choose(config, "algorithm_type", kinds), config["solver_order"]
  if choose(config, "solver_type", _FOREIGN) != "midpoint":
    refuse(config, {"solver_type": 'only "midpoint" is'})
  lowered = config["lower_order_final"] and config["final_sigmas_type"] != "zero"

  def orders(S: int) -> dict[int, int]:
    """Their cycle, also for a sequence that is entered midway."""
    cycle = [i % order + 1 for i in range(S)]
    if lowered and S % order == 0:
      cycle[-1] = 1
    return dict(zip(range(S, 0, -1), cycle, strict=True))

  return dpm_solver_pp_singlestep(order, eta, limit=limit_of_last(levels, orders, CYCLES))


def unified(config: dict[str, Any], levels: Spacing) -> Solver:
  """UniPCMultistepScheduler."""
  refuse(config, {"disable_corrector": "every step is corrected", "solver_p": "the predictor is UniPC's"})
  choose(config, "solver_type", {k: k for k in ("bh2", "midpoint", "heun", "logrho")})
  if not config["predict_x0"]:
    raise ValueError("predict_x0 must be True: UniPC in eps is not supported")
  if (order := config["solver_order"]) == 1:
    raise ValueError("solver_order must be 2 or 3, got 1: here UniPC of order 1 is DDIM without a corrector")
  to_zero = config["final_sigmas_type"] == "zero"
  rules = {left: left for left in range(2 if to_zero else 1, order)} if config["lower_order_final"] else {}
  return unipc(order, limit=limit_of_last(levels, lambda S: rules, MANY))


def exponential(config: dict[str, Any], levels: Spacing) -> Solver:
  """DEISMultistepScheduler."""
  choose(config, "algorithm_type", {k: k for k in ("deis", "dpmsolver", "dpmsolver++")})
  lowered = config["lower_order_final"] and config["solver_order"] > 1
  return deis(
    config["solver_order"],
    limit=limit_of_last(levels, lambda S: {1: 1, 2: 2} if lowered else {}, FEW),
  )


def adams(config: dict[str, Any], levels: Spacing) -> Solver:
  """SASolverScheduler, with noise at their timesteps 200 to 800."""
  refuse(config, {"tau_func": "a function in a file cannot be"})
  choose(config, "algorithm_type", {"data_prediction": True})
  for key in ("predictor_order", "corrector_order"):
    choose(config, key, {2: True})
  lowered = config["lower_order_final"]
  limit = limit_of_last(levels, lambda S: {1: 1} if lowered else {}, MANY)
  return sa_solver(lambda t: jnp.where((t >= 201) & (t <= 801), 1.0, 0.0), limit=limit)


def renewed() -> Solver:
  """FlowMatchEulerDiscreteScheduler with ``stochastic_sampling``: all of the noise is drawn anew."""

  def step(
    denoise: Denoiser, schedule: Schedule, carry: Any, x_t: jax.Array, t: Level, s: Level, z: jax.Array
  ) -> Stepped:
    prediction = denoise(x_t, t)
    return add_noise(schedule, prediction.x0, z, s), carry, prediction

  return Solver(lambda x: (), step)


def ddpm_of(config: dict[str, Any], variance: Any) -> Solver:
  """DDPMScheduler; ``variance`` is the network's second output as a function ``(x_t, t) -> v``, or None."""
  table = {
    None: "small",  # as files of DPM-Solver leave it behind
    "fixed_small": "small",
    "fixed_small_log": "small",
    "fixed_large": "large",
    "fixed_large_log": "large",
  }
  kind = choose(config, "variance_type", table | {"learned_range": "learned range"})
  if kind != "learned range":
    return ddpm(kind)
  if variance is None:
    raise ValueError("variance_type 'learned_range' needs a network with twice as many channels out as in")
  return ddpm(variance)


def solver_of(config: dict[str, Any], levels: Spacing, variance: Any = None) -> Solver:
  """The solver of a completed configuration.

  Args:
    config: Of the scheduler.
    levels: Its spacing.
    variance: ``(x_t, t) -> v`` for a learned range, see `ddim_jax.ddpm`.

  Raises:
    ValueError: If an option cannot be expressed; names it.
  """
  match config["_class_name"]:
    case "DDPMScheduler" | "DDPMParallelScheduler":
      return ddpm_of(config, variance)
    case "PNDMScheduler":
      return plms() if config["skip_prk_steps"] else pndm()
    case (
      "DPMSolverMultistepScheduler" | "DPMSolverMultistepInverseScheduler" | "EDMDPMSolverMultistepScheduler"
    ):
      return dpm(config, levels)
    case "DPMSolverSinglestepScheduler":
      return singlestep(config, levels)
    case "UniPCMultistepScheduler":
      return unified(config, levels)
    case "DEISMultistepScheduler":
      return exponential(config, levels)
    case "SASolverScheduler":
      return adams(config, levels)
    case "HeunDiscreteScheduler":
      return heun()
    case "LMSDiscreteScheduler":
      return lms()
    case "EulerAncestralDiscreteScheduler":
      return ddim(1.0)
    case "KDPM2DiscreteScheduler":
      return dpm_solver_2()
    case "KDPM2AncestralDiscreteScheduler":
      return ancestral(dpm_solver_2())
    case "DPMSolverSDEScheduler":
      return dpm_solver_pp_sde()
    case "FlowMatchEulerDiscreteScheduler" if config["stochastic_sampling"]:
      return renewed()
  return ddim()
