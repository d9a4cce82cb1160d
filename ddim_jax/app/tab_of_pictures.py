"""The tab with a picture of one's own: inverted and drawn again, or painted anew under a mask."""

from collections.abc import Iterator
from typing import Any

import gradio as gr
import numpy as np

from ddim_jax import plots
from ddim_jax.app import tasks, uploads, views, widgets
from ddim_jax.app.controls import settings_of
from ddim_jax.app.frame import LONG, QUIET, Frame, place, shown_in_place
from ddim_jax.app.handlers import as_sentence
from ddim_jax.app.settings import EACH

Values = list[Any]
_NONE = "Choose a picture first, or take a drawn one."


def _unpainted(picture: np.ndarray) -> Any:
  """The canvas with a picture and no mask."""
  return gr.update(value="", picture=views.address(plots.visible(picture)))


def pictures(frame: Frame) -> gr.Column:
  """A picture is chosen, or taken from those of the settings; then edited."""
  model, picture = frame.model, gr.State(None)
  with gr.Column(visible=False) as part, gr.Row():
    with gr.Column(scale=1, min_width=260):
      file = widgets.chooser()
      take = gr.Button("Take image 0 of the settings", elem_id="take")
      said = gr.HTML("", elem_id="said")
      canvas = widgets.canvas(model.shape)
      clear = gr.Button("Clear the mask", size="sm", elem_id="clear")
      repeats = gr.Slider(1, 10, 3, step=1, label="How often each stretch is walked", elem_id="repeats")
      paint = gr.Button("Paint what is covered anew", variant="primary", elem_id="paint")
      label = gr.Dropdown(
        [EACH, *model.classes], value=EACH, label="Class of the picture", visible=bool(model.classes)
      )
      strength = gr.Slider(0.05, 1, 0.6, step=0.05, label="Draw again from this share of the way to noise")
      refine = gr.Slider(0, 20, 3, step=1, label="Iterations of a step of the inversion")
      edit = gr.Button("Invert, and draw again", variant="primary", elem_id="edit")
    with gr.Column(scale=2, min_width=320):
      where = place("pictures")

  def chosen_file(content: str) -> Values:
    try:
      found = uploads.picture(content, model.shape)
    except ValueError as error:
      return [gr.skip(), gr.skip(), views.sentence(as_sentence(error))]
    return [found, _unpainted(found), "<p>Draw over what is to be painted anew.</p>"]

  def taken(request: gr.Request, *values: Any) -> Iterator[Values]:
    try:
      *_, last = tasks.draw(model, settings_of(values))
    except (ValueError, FloatingPointError) as error:
      yield [gr.skip(), gr.skip(), views.sentence(f"{error}.")]
      return
    found = last.rows[0].images[0]
    yield [found, _unpainted(found), "<p>Draw over what is to be painted anew.</p>"]

  def edited(
    request: gr.Request, picture: Any, label: str, strength: float, refine: float, *values: Any
  ) -> Iterator[Values]:
    if picture is None:
      yield [views.sentence(_NONE), gr.skip(), ""]
      return
    task = lambda chosen: tasks.edit(model, chosen, picture, label, strength, int(refine))
    yield from shown_in_place(frame, request, values, task, strength=strength, refine=refine)

  def painted(request: gr.Request, picture: Any, mask: str, repeats: float, *values: Any) -> Iterator[Values]:
    if picture is None:
      yield [views.sentence(_NONE), gr.skip(), ""]
      return
    task = lambda chosen: tasks.paint(model, chosen, picture, uploads.mask(mask, model.shape), int(repeats))
    yield from shown_in_place(frame, request, values, task, repeats=repeats)

  file.chosen(chosen_file, file, [picture, canvas, said], **QUIET)
  take.click(taken, list(frame.controls), [picture, canvas, said], **LONG)
  clear.click(lambda: "", None, canvas, queue=False, **QUIET)
  edit.click(edited, [picture, label, strength, refine, *frame.controls], list(where), **LONG)
  paint.click(painted, [picture, canvas, repeats, *frame.controls], list(where), **LONG)
  return part
