"""Solvers: how a sample moves from one noise level to the next. A module for each family.

A solver is a pair of pure functions, as an optax optimiser is. Every one of them is DDIM at order 1, takes
traced levels, integer or real, down to level 0, and differs only in which average of predictions it gives
the DDIM step (`ddim_jax.solvers.base`).

    solver                        network evaluations for S steps   order in 1/S
    ddim(eta)                     S                                 1
    ddpm(variance)                S                                 stochastic
    dpm_solver_pp(order, eta)     S                                 order (eta = 1: stochastic)
    dpm_solver_pp_singlestep(order, eta)  S                         order, at most 2
    dpm_solver_pp_2s()            2 S - 1                           2
    dpm_solver_pp_sde(eta)        2 S - 1                           2 (eta above 0: in distribution)
    dpm_solver_2()                2 S - 1                           2
    lms(order)                    S                                 order
    unipc(order)                  S                                 order + 1 (1 at order 1)
    deis(order)                   S                                 order
    heun(order, churn)            2 S - 1                           order
    plms(order)                   S + 1                             2 (1 at order 1)
    pndm()                        S + 9                             2
    sa_solver(tau)                S                                 2 (tau above 0: stochastic)
    ancestral(solver, eta)        the solver's                      stochastic

What others call Euler is ``ddim()``, Euler ancestral ``ddim(eta=1)``, DPM2 ``dpm_solver_2()``.
"""

from ddim_jax.solvers.base import Solver, lower_order_final
from ddim_jax.solvers.ddim import ddim, ddim_step, ddpm
from ddim_jax.solvers.deis import deis
from ddim_jax.solvers.dpm_solver_pp import dpm_solver_pp
from ddim_jax.solvers.dpm_solver_sde import dpm_solver_pp_sde
from ddim_jax.solvers.heun import heun
from ddim_jax.solvers.lms import lms
from ddim_jax.solvers.pndm import plms, pndm
from ddim_jax.solvers.sa_solver import sa_solver
from ddim_jax.solvers.singlestep import (
  ancestral,
  dpm_solver_2,
  dpm_solver_pp_2s,
  dpm_solver_pp_singlestep,
)
from ddim_jax.solvers.unipc import unipc

__all__ = [
  "Solver",
  "ancestral",
  "ddim",
  "ddim_step",
  "ddpm",
  "deis",
  "dpm_solver_2",
  "dpm_solver_pp",
  "dpm_solver_pp_2s",
  "dpm_solver_pp_sde",
  "dpm_solver_pp_singlestep",
  "heun",
  "lms",
  "lower_order_final",
  "plms",
  "pndm",
  "sa_solver",
  "unipc",
]
