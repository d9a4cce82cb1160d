"""What all tabs share: the settings, whose turn it is, and a place for pictures that fills step by step."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import gradio as gr

from ddim_jax.app import settings, views
from ddim_jax.app.controls import Controls, settings_of
from ddim_jax.app.handlers import followed
from ddim_jax.app.settings import Settings
from ddim_jax.app.tasks import Shown
from ddim_jax.app.turns import Turns
from ddim_jax.models import Model

QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
"""Of every event: no veil over the page, and no entry for programs."""
LONG: dict[str, Any] = QUIET | {"concurrency_limit": None, "trigger_mode": "multiple"}
"""Of events that compute: a newer one begins at once, and ends the older one."""


class Frame(NamedTuple):
  """The page around the tabs.

  Attributes:
    model: Whose images.
    name: As it is called on the command line.
    turns: Requests of all visitors.
    controls: The settings.
    tab: Which of `ddim_jax.app.tabs.TABS` is open.
  """

  model: Model
  name: str
  turns: Turns
  controls: Controls
  tab: gr.Radio


class Place(NamedTuple):
  """Where a task shows: how far it is, its pictures, and the link to download them."""

  status: gr.HTML
  pictures: gr.HTML
  download: gr.HTML


def place(name: str) -> Place:
  """An empty place."""
  return Place(*(gr.HTML("", elem_id=f"{name}-{part}") for part in Place._fields))


def visitor(request: gr.Request) -> str:
  """Who asks: each opened page is a visitor of its own."""
  return request.session_hash or ""


def shown_in_place(
  frame: Frame,
  request: gr.Request,
  values: tuple[Any, ...],
  task: Callable[[Settings], Iterator[Shown]],
  **more: Any,
) -> Iterator[list[Any]]:
  """Values for the parts of a place, again and again.

  Args:
    frame: The page.
    request: Who asks.
    values: What the controls of the settings show.
    task: What to show for the settings.
    more: What else decides the pictures, kept with the settings in the one to download.
  """
  yield [views.waiting("working (the first time, it is compiled)"), gr.skip(), ""]
  for shown in followed(frame.turns, visitor(request), lambda: task(settings_of(values))):
    if isinstance(shown, str):
      yield [views.sentence(shown), gr.skip(), ""]
      continue
    download = ""
    if shown.done == shown.total:
      chosen = settings_of(values)
      made = {"model": frame.name, "step": frame.model.step, **dataclasses.asdict(chosen), **more}
      made["levels"] = settings.levels(chosen, frame.model).tolist()
      download = views.download(shown, made)
    yield [views.progress(shown.done, shown.total), views.rows(shown), download]
