"""The settings as controls of the page, and back."""

from typing import Any, NamedTuple, get_args

import gradio as gr

from ddim_jax.app.settings import EACH, MOST_STEPS, OWN, Settings, first
from ddim_jax.models import SOLVERS, Model, tables

_SPACINGS = (OWN, *get_args(tables.SpacingName))


class Controls(NamedTuple):
  """One control for each of the `Settings`, in their order."""

  seed: gr.Number
  steps: gr.Slider
  eta: gr.Slider
  guidance: gr.Slider
  label: gr.Dropdown
  solver: gr.Dropdown
  spacing: gr.Dropdown


DRAWN = tuple(name for name in SOLVERS if name != tables.LEARNED)
"""Solvers of the page, which takes one step at a time and knows no variances that a network predicts."""


def controls(model: Model) -> Controls:
  """Controls of what the model can do; those of what it cannot are hidden."""
  begun, guided = first(model), model.null_label is not None
  seed = gr.Number(begun.seed, label="Seed", precision=0, minimum=0, elem_id="seed")
  label = gr.Dropdown(
    [EACH, *model.classes], value=EACH, label="Class", visible=bool(model.classes), elem_id="class"
  )
  most = min(model.schedule.T, MOST_STEPS)
  steps = gr.Slider(1, most, begun.steps, step=1, label="Steps S", elem_id="steps")
  guidance = gr.Slider(0, 8, begun.guidance, step=0.1, label="Guidance", visible=guided, elem_id="guidance")
  solver = gr.Dropdown(list(DRAWN), value=begun.solver, label="Solver", elem_id="solver")
  eta = gr.Slider(0, 1, begun.eta, step=0.05, label="Noise eta (solver ddim)", elem_id="eta")
  spacing = gr.Dropdown(list(_SPACINGS), value=OWN, label="Spacing of the levels", elem_id="spacing")
  solver.change(
    lambda name: gr.update(interactive=name == "ddim"), solver, eta, queue=False, show_progress="hidden",
    api_visibility="private",
  )  # fmt: skip
  return Controls(seed, steps, eta, guidance, label, solver, spacing)


def settings_of(values: tuple[Any, ...]) -> Settings:
  """The settings that the controls show.

  Raises:
    ValueError: If a number is missing.
  """
  seed, steps, eta, guidance, label, solver, spacing = values
  if seed is None or steps is None:
    raise ValueError("seed and steps must be numbers, got nothing")
  eta = float(eta) if solver == "ddim" else 0.0
  return Settings(int(seed), int(steps), eta, float(guidance), label, solver, spacing)


def values_of(settings: Settings) -> list[Any]:
  """What the controls show for the settings."""
  s = settings
  return [s.seed, s.steps, s.eta, s.guidance, s.label, s.solver, s.spacing]
