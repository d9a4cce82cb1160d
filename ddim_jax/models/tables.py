"""Names of solvers, spacings, schedules and predictions, for configurations and commands."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

import numpy as np

from ddim_jax import beta_schedules, parameterisation, paths, ranges, schedules, solvers, timesteps

SolverName = Literal[
  "ddim", "ddpm", "ddpm-large", "ddpm-learned", "dpmpp-2m", "dpmpp-3m", "dpmpp-2s", "dpmpp-2m-sde",
  "dpmpp-sde", "unipc2", "unipc3", "deis2", "deis3", "heun", "plms", "pndm",
]  # fmt: skip
LEARNED = "ddpm-learned"
"""The solver that takes variances from the model's own network, see `ddim_jax.models.Model.variance`."""
NO_VARIANCE = (
  f"the solver {LEARNED} needs a model whose network also predicts variances, in Model.sample or ddim sample"
)


def _of_no_model(x_t: Any, t: Any) -> Any:
  raise ValueError(NO_VARIANCE)


SOLVERS: dict[str, Callable[[Any], solvers.Solver]] = {
  "ddim": solvers.ddim,
  "ddpm": lambda eta: solvers.ddpm("small"),
  "ddpm-large": lambda eta: solvers.ddpm("large"),
  LEARNED: lambda eta: solvers.ddpm(_of_no_model),
  "dpmpp-2m": lambda eta: solvers.dpm_solver_pp(2),
  "dpmpp-3m": lambda eta: solvers.dpm_solver_pp(3),
  "dpmpp-2s": lambda eta: solvers.dpm_solver_pp_2s(),
  "dpmpp-2m-sde": lambda eta: solvers.dpm_solver_pp(2, eta=1.0),
  "dpmpp-sde": lambda eta: solvers.dpm_solver_pp_sde(),
  "unipc2": lambda eta: solvers.unipc(2),
  "unipc3": lambda eta: solvers.unipc(3),
  "deis2": lambda eta: solvers.deis(2),
  "deis3": lambda eta: solvers.deis(3),
  "heun": lambda eta: solvers.heun(),
  "plms": lambda eta: solvers.plms(),
  "pndm": lambda eta: solvers.pndm(),
}
"""Name -> ``(eta) -> Solver``; all but ddim ignore eta."""


def steps_for(solver: str, evaluations: int) -> int:
  """How many steps of a solver so many evaluations of the network pay for, down to level 0.

  Raises:
    ValueError: If there is no such solver, or not a single step is paid for.
  """
  named(SOLVERS, solver, "solver")
  twice, more = solver in ("heun", "dpmpp-2s", "dpmpp-sde"), {"plms": 1, "pndm": 9}.get(solver, 0)
  least = 13 if solver == "pndm" else 1 + more
  if evaluations < least:
    raise ValueError(f"evaluations must be at least {least} with the solver {solver}, got {evaluations}")
  return (evaluations + 1) // 2 if twice else evaluations - more


Spacing = Callable[[int], np.ndarray]
"""``S -> [S+1]``: the levels of S steps."""
SpacingName = Literal["uniform", "quadratic", "leading", "trailing", "linspace", "log-snr", "karras"]
_INTEGERS = {
  "uniform": timesteps.uniform,
  "quadratic": timesteps.quadratic,
  "leading": timesteps.leading,
  "trailing": timesteps.trailing,
  "linspace": timesteps.linspace,
}
_REALS = {"log-snr": timesteps.log_snr, "karras": timesteps.karras}

SCHEDULES: dict[str, Callable[[int], schedules.Schedule]] = {
  "linear": beta_schedules.linear_schedule,
  "cosine": beta_schedules.cosine_schedule,
  "quadratic": beta_schedules.quadratic_schedule,
  "constant": beta_schedules.constant_schedule,
  "sigmoid": beta_schedules.sigmoid_schedule,
  "jsd": beta_schedules.jsd_schedule,
  "warmup": beta_schedules.warmup_schedule,
  "edm": paths.edm_schedule,
  "flow": paths.flow_schedule,
}
"""Name -> ``(T) -> Schedule``."""
PREDICTIONS = {
  "eps": parameterisation.EPS,
  "x0": parameterisation.X0,
  "v": parameterisation.V,
  "edm": parameterisation.EDM,
  "flow": parameterisation.FLOW,
}
"""Name -> what the network predicts."""


_V = TypeVar("_V")


def named(table: Mapping[str, _V], name: str, argument: str) -> _V:
  """The entry of a table.

  Raises:
    ValueError: If there is none; names the argument, what was received and what is allowed.
  """
  if not isinstance(name, str) or name not in table:
    raise ValueError(f"{argument} must be one of {', '.join(table)}, got {name!r}")
  return table[name]


def spacing(name: str, schedule: schedules.Schedule) -> Spacing:
  """The spacing of a name, for this schedule; log-snr and karras give real levels.

  Raises:
    ValueError: If there is none of that name.
  """
  known: dict[str, Spacing] = {key: functools.partial(make, schedule.T) for key, make in _INTEGERS.items()}
  known |= {key: functools.partial(make, schedule) for key, make in _REALS.items()}
  return named(known, name, "spacing")


def as_solver(solver: str | solvers.Solver | None, eta: Any = 0.0, variance: Any = None) -> solvers.Solver:
  """A solver by name, DDIM for None, or the one given.

  ``eta``, perhaps traced, is DDIM's, and ``variance``, from `ddim_jax.models.denoising.pair`, that of
  "ddpm-learned".

  Raises:
    ValueError: If there is no such name.
  """
  if solver == LEARNED and variance is not None:
    return solvers.ddpm(variance)
  if isinstance(solver, solvers.Solver):
    return solver
  return named(SOLVERS, "ddim" if solver is None else solver, "solver")(eta)


def name_of(solver: str | solvers.Solver) -> str:
  """What a solver is called."""
  return solver if isinstance(solver, str) else solver.name or "a solver without a name"


def checked_eta(eta: float, solver: str | solvers.Solver) -> np.float32:
  """Eta; ValueError unless it is in [0, 1], and 0 for all solvers but DDIM."""
  ranges.check(ranges.Unit, "eta", eta)
  if eta and solver != "ddim":
    raise ValueError(f"eta goes with the solver ddim, got eta {eta:g} with {name_of(solver)}")
  return np.float32(eta)
