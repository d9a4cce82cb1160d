"""The tabs without pictures of one's own: drawing, interpolating, comparing solvers."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import gradio as gr

from ddim_jax.app import tasks, views
from ddim_jax.app.controls import DRAWN, settings_of
from ddim_jax.app.frame import LONG, QUIET, Frame, place, shown_in_place
from ddim_jax.app.handlers import Trajectory
from ddim_jax.app.settings import Settings, to_query
from ddim_jax.models import tables

Values = list[Any]


class Drawing(NamedTuple):
  """How the pictures are drawn anew: by an event with these."""

  function: Any
  inputs: list[Any]
  outputs: list[Any]


DRAW, BETWEEN, PICTURES, SOLVE = TABS = ("Draw", "Between two", "Your picture", "Solvers")
"""What there is to do."""


def _moves(control: gr.Slider | gr.Number | gr.Dropdown) -> Any:
  """The event of a control that the visitor has moved."""
  return control.input


def draw(frame: Frame, link: gr.HTML) -> tuple[gr.Column, Drawing]:
  """Images that follow the settings, and how each came about."""
  model = frame.model
  with gr.Column() as part:
    where = place("draw")
    scrub = gr.Slider(
      0, 1, 1, step=0.01, label="On the way: from noise (0) to the images (1)", elem_id="scrub"
    )
    again = gr.Button("Draw", variant="primary", elem_id="draw")
  kept = gr.State(None)

  def drawn(request: gr.Request, tab: str, *values: Any) -> Iterator[Values]:
    if tab != DRAW:
      return
    way = Trajectory()

    def recorded(chosen: Settings) -> Iterator[tasks.Shown]:
      for shown in tasks.draw(model, chosen):
        way.add(shown)
        yield shown

    for parts in shown_in_place(frame, request, values, recorded):
      query = to_query(settings_of(values), model) if way.moments else gr.skip()
      yield [*parts, way, 1, query]

  def moment(way: Trajectory | None, share: float) -> str | Any:
    shown = None if way is None else way.at(share)
    return gr.skip() if shown is None else views.rows(shown)

  scrub.input(moment, [kept, scrub], where.pictures, queue=False, **QUIET)
  how = Drawing(drawn, [frame.tab, *frame.controls], [*where, kept, scrub, link])
  for event in (again.click, *map(_moves, frame.controls)):
    event(*how, **LONG)
  return part, how


def between(frame: Frame) -> gr.Column:
  """From one seed to another."""
  with gr.Column(visible=False) as part:
    with gr.Row():
      other = gr.Number(1, label="The other seed", precision=0, minimum=0, elem_id="other")
      weight = gr.Slider(0, 1, 0.5, step=0.01, label="Weight of the other", elem_id="weight")
    begin = gr.Button("Draw", variant="primary", elem_id="between")
    where = place("between")

  def drawn(request: gr.Request, tab: str, other: float, weight: float, *values: Any) -> Iterator[Values]:
    if tab != BETWEEN:
      return

    def task(chosen: Settings) -> Iterator[tasks.Shown]:
      second = settings_of((other, *values[1:])).seed
      yield from tasks.between(frame.model, chosen, second, weight)

    yield from shown_in_place(frame, request, values, task, other=other, weight=weight)

  for event in (begin.click, *map(_moves, (other, weight, *frame.controls))):
    event(drawn, [frame.tab, other, weight, *frame.controls], list(where), **LONG)
  return part


def solvers(frame: Frame) -> gr.Column:
  """Solvers side by side."""
  with gr.Column(visible=False) as part:
    first = ["ddim", "dpmpp-2m", "unipc2", "deis3"]
    names = gr.CheckboxGroup(list(DRAWN), value=first, label="Solvers", elem_id="names")
    evaluations = gr.Slider(
      1, 100, 10, step=1, label="Evaluations of the network for each", elem_id="evaluations"
    )
    begin = gr.Button("Compare", variant="primary", elem_id="compare")
    where = place("solvers")

  def drawn(
    request: gr.Request, names: list[tables.SolverName], evaluations: float, *values: Any
  ) -> Iterator[Values]:
    task = lambda chosen: tasks.solvers(frame.model, chosen, names, int(evaluations))
    yield from shown_in_place(frame, request, values, task, solvers=names, evaluations=evaluations)

  begin.click(drawn, [names, evaluations, *frame.controls], list(where), **LONG)
  return part
