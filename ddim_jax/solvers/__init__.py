"""Solvers: how a sample moves from one noise level to the next. A module for each family.

A solver is a pair of pure functions, as an optax optimiser is. Every one of them is DDIM at order 1, takes
traced levels, integer or real, down to level 0, and differs only in which average of predictions it gives
the DDIM step (`ddim_jax.solvers.base`).

    solver                        network evaluations for S steps   order in 1/S
    ddim(eta)                     S                                 1
    ddpm(variance)                S                                 stochastic
    dpm_solver_pp(order, eta)     S                                 order (eta = 1: stochastic)
    dpm_solver_pp_2s()            2 S - 1                           2
    unipc(order)                  S                                 order + 1 (1 at order 1)
    deis(order)                   S                                 order
    heun(order, churn)            2 S - 1                           order
    plms(order)                   S + 1                             2 (1 at order 1)
    pndm()                        S + 9                             2
"""

from ddim_jax.solvers.base import Solver
from ddim_jax.solvers.ddim import ddim, ddim_step, ddpm
from ddim_jax.solvers.deis import deis
from ddim_jax.solvers.dpm_solver_pp import dpm_solver_pp, dpm_solver_pp_2s
from ddim_jax.solvers.heun import heun
from ddim_jax.solvers.pndm import plms, pndm
from ddim_jax.solvers.unipc import unipc

__all__ = [
  "Solver",
  "ddim",
  "ddim_step",
  "ddpm",
  "deis",
  "dpm_solver_pp",
  "dpm_solver_pp_2s",
  "heun",
  "plms",
  "pndm",
  "unipc",
]
