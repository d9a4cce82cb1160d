"""What solvers cost besides the network: ``python -m experiments.bench solvers``."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import ddim_jax
from ddim_jax.models import tables
from experiments.bench import measure, peers
from experiments.studies.solver_errors import STEPS


def solvers(
  network: peers.Network = "cifar10",
  batch_size: int = 8,
  evaluations: int = 15,
  names: tuple[tables.SolverName, ...] = ("ddim", "dpmpp-2m", "unipc3", "deis3", "heun", "plms"),
  rounds: int = 5,
  out: Path = measure.OUT,
) -> None:
  """Time a network evaluation of each solver, next to DDIM's.

  Args:
    network: Which network, with random weights.
    batch_size: Images a call.
    evaluations: Network evaluations that a solver may spend; one that asks twice a step takes fewer steps.
    names: Which solvers; the first is what the others are compared with.
    rounds: How often each side is measured, in turn.
    out: Folder for the JSON and the chart.
  """
  measure.positive(batch_size=batch_size, evaluations=evaluations, rounds=rounds)
  if unknown := set(names) - set(STEPS):
    raise ValueError(f"--names must be deterministic solvers, {sorted(STEPS)}; got {sorted(unknown)}")
  pretrained = peers.ours(network)
  variables = jax.device_put(pretrained.variables)
  x_T = jax.random.normal(jax.random.key(0), (batch_size, *peers.image_shape(pretrained)))
  least = {name: STEPS[name](evaluations) for name in names}
  if min(least.values()) < 1:
    raise ValueError(f"--evaluations must give every solver a step, got {evaluations}: {least}")

  def side(name):
    ts = jnp.asarray(ddim_jax.timesteps.uniform(pretrained.schedule.T, least[name]))
    solver = tables.as_solver(name, 0.0)

    @jax.jit
    def program(variables, schedule, x_T):
      denoise = ddim_jax.as_denoiser(lambda x, t: pretrained.model.apply(variables, x, t), schedule)
      return ddim_jax.sample(jax.random.key(0), denoise, schedule, x_T, ts, solver=solver)[0]

    return lambda: np.asarray(program(variables, pretrained.schedule, x_T))

  work = evaluations * measure.gflop(pretrained.model, variables, x_T, jnp.int32(1))
  sides: measure.Sides = {name: side(name) for name in names}
  results = measure.compare(sides, rounds, batch_size, work, names[0])
  settings = {"network": network, "batch_size": batch_size, "evaluations": evaluations, "rounds": rounds}
  label = f"seconds an image, {evaluations} network evaluations at most"
  measure.report(f"solvers_{network}_b{batch_size}", settings | results, out, measure.times(results), label)
