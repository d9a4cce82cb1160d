"""The page: settings on the left, what they make on the right, a tab for each thing to do."""

from typing import Any

import gradio as gr

from ddim_jax.app import tabs, views, widgets
from ddim_jax.app.controls import controls, values_of
from ddim_jax.app.frame import LONG, QUIET, Frame, visitor
from ddim_jax.app.settings import first, from_query
from ddim_jax.app.tab_of_pictures import pictures
from ddim_jax.app.turns import Turns
from ddim_jax.models import Model


def build(model: Model, name: str) -> gr.Blocks:
  """The page of a model.

  Args:
    model: Whose images.
    name: As it is called on the command line.
  """
  turns = Turns()
  with gr.Blocks(title=f"ddim: {name}", analytics_enabled=False, fill_width=True) as blocks:
    gr.Markdown(f"### {name}: {' x '.join(map(str, model.shape))} pixels, levels 0 to {model.schedule.T}")
    if model.config.distilled:
      gr.Markdown(
        f"Distilled for {model.config.distilled} steps of DDIM. Other numbers of steps, other solvers and"
        " pictures of yours are for its teacher, such as `ddim play fashion_mnist_classes`."
      )
    refused = gr.HTML("", elem_id="refused")
    with gr.Row(elem_classes="ddim-page"):
      with gr.Column(scale=1, min_width=260):
        chosen = controls(model)
        stop = gr.Button("Stop", elem_id="stop")
        link = widgets.link()
      with gr.Column(scale=4, min_width=320):
        # Not gr.Tabs: in Gradio 6.31 a tab that was opened is listed twice.
        tab = gr.Radio(list(tabs.TABS), value=tabs.DRAW, show_label=False, container=False, elem_id="tabs")
        frame = Frame(model, name, turns, chosen, tab)
        drawing, at_once = tabs.draw(frame, link)
        parts = [drawing, tabs.between(frame), pictures(frame), tabs.solvers(frame)]
        opened_tab = lambda open_now: [gr.update(visible=name == open_now) for name in tabs.TABS]
        tab.input(opened_tab, tab, parts, queue=False, **QUIET)

    def opened(request: gr.Request) -> list[Any]:
      try:
        return ["", *values_of(from_query(dict(request.query_params), model))]
      except ValueError as error:
        return [views.sentence(f"The address is not used: {error}."), *values_of(first(model))]

    def stopped(request: gr.Request) -> None:
      turns.stop(visitor(request))

    def left(request: gr.Request) -> None:
      turns.leave(visitor(request))

    stop.click(stopped, queue=False, **QUIET)
    blocks.load(opened, None, [refused, *chosen], **QUIET).then(*at_once, **LONG)
    blocks.unload(left)
  return blocks
