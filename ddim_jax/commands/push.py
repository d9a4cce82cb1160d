"""``ddim push``: a model to the Hugging Face hub, with a card."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from ddim_jax import plots
from ddim_jax.commands import options
from ddim_jax.commands.convert import write_diffusers
from ddim_jax.console import say
from ddim_jax.models import Model, card, drawing, exported
from ddim_jax.places import is_hub_name
from ddim_jax.ranges import Count, Rate

_PICTURE, _DRAWN, _STEPS = "samples.png", 16, 20
Repository = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="OWNER/NAME")]


def _for_diffusers(model: Model, folder: Path) -> str | None:
  """Writes the files of diffusers, if it can express the model.

  Returns:
    The pipeline that draws from them as the model does, if there is one.
  """
  try:
    kind, pipeline = write_diffusers(folder, model)
  except ValueError as error:
    say(f"no files for diffusers: {error}")
    return None
  return "DDIMPipeline" if kind.startswith("DDPM") else pipeline


def gather(model: Model, name: str, folder: Path, draw: bool) -> list[str]:
  """Writes what is uploaded: the model, where diffusers can express it its pipeline, samples, and the card.

  Returns:
    The files, relative to the folder.
  """
  pipeline = _for_diffusers(model, folder)
  folder.mkdir(exist_ok=True)
  model.save(folder / exported.IN_A_FOLDER)
  drawn = draw and model.visible
  if drawn:
    ts = model.levels(min(_STEPS, model.schedule.T))
    size, pictures = drawing.numbered_pictures(model, ts, at_once=_DRAWN)
    plots.save_png(folder / _PICTURE, plots.grid(pictures(np.arange(size))[:_DRAWN]))
  text = card.card(model, name, diffusers=pipeline, picture=_PICTURE if drawn else None)
  (folder / "README.md").write_text(text)
  return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def push(
  model: options.Where,
  repository: Repository,
  *,
  step: Count | None = None,
  ema: Rate | None = None,
  private: bool = False,
  samples: bool = True,
  message: str = "A model of ddim_jax",
  image_size: options.Size = None,
  flags: options.Flags = None,
) -> None:
  """Puts a model on the Hugging Face hub, where ddim_jax.load finds it by its name; and diffusers, if it can.

  ddim push runs/mine me/my-model

  Needs the extra hf, and a token of yours: hf auth login, or $HF_TOKEN.

  Args:
    model: The model.
    repository: OWNER/NAME on the hub; created if it is not there.
    step: Checkpoint of a run to use; the newest by default.
    ema: Decay of the EMA to use, of those the run has kept; its main one by default.
    private: Only you can see it.
    samples: Draw a grid of samples for the card.
    message: Of the commit.
    image_size: See `options.Size`.
    flags: See `options.Flags`.
  """
  if not is_hub_name(repository):
    raise ValueError(f"repository must be OWNER/NAME, got {repository!r}")
  from huggingface_hub import HfApi
  from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

  found = options.model(model, step, ema, size=image_size, flags=flags)
  with tempfile.TemporaryDirectory() as place:
    folder = Path(place) / "model"
    names = gather(found, repository, folder, samples)
    try:
      api = HfApi()
      api.create_repo(repository, private=private, exist_ok=True)
      api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message)
    except LocalTokenNotFoundError:
      raise ValueError("the hub needs a token: hf auth login, or HF_TOKEN") from None
    except (HfHubHTTPError, OSError) as error:
      first = str(error).strip().splitlines()[0]
      raise ValueError(f"{repository} was not written ({type(error).__name__}): {first}") from error
  say(f"{repository}: {', '.join(names)}")


def main(argv: Sequence[str]) -> None:
  """Parses, uploads and exits."""
  options.run(push, argv, "ddim push")
