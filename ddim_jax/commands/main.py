"""The command ``ddim``: finds the module of what was asked for, which is imported only then."""

import importlib
import importlib.util
import sys
from collections.abc import Sequence

from ddim_jax.console import missing, terminal

COMMANDS = {
  "sample": ("sample_images", "draw images, trajectories, interpolations; inpaint; image to image"),
  "train": ("train_model", "train a model, or go on with a run"),
  "distil": ("distil_model", "train a student that needs few steps"),
  "compare": ("compare", "the same images for several S and eta, side by side"),
  "evaluate": ("evaluate_model", "how far samples are from the data, for several S and solvers"),
  "play": ("play", "serve a page where a model draws while you move its settings"),
  "inspect": ("inspect_model", "what a run, a model or a data set holds; whether checkpoints are sound"),
  "export": ("export", "write a model as one file"),
  "push": ("push", "put a model on the Hugging Face hub, with a card"),
  "convert": ("convert", "write a model for diffusers, or as a checkpoint"),
}
"""Name -> module, and what it is for."""
_EXAMPLES = """
  ddim sample                                    draw clothes with the model that comes along
  ddim sample --class Sneaker --guidance 3
  ddim inspect PHOTOS                            what a folder of your pictures holds, and a contact sheet
  ddim train PHOTOS                              train on it; or on a .npy or .npz file, hf:NAME, tfds:NAME
  ddim sample runs/folder --steps 20
"""


def usage() -> str:
  """What ``ddim --help`` says."""
  lines = "\n".join(f"  ddim {name:8} {text}" for name, (_, text) in COMMANDS.items())
  return (
    f"usage: ddim COMMAND ...\n\n{lines}\n\nexamples:\n{_EXAMPLES}\nddim COMMAND --help lists all options; of"
    " training, ddim train folder --help."
  )


def main(argv: Sequence[str] | None = None) -> None:
  """Runs a command and exits with its status."""
  name, *rest = (sys.argv[1:] if argv is None else list(argv)) or ["--help"]
  with terminal():
    try:
      _run(name, rest)
    except ModuleNotFoundError as error:
      sys.stderr.write(missing(error))
      sys.exit(2)


def _run(name: str, rest: Sequence[str]) -> None:
  """Runs the command of a name."""
  if name in ("-h", "--help"):
    print(usage())
    return
  if name == "--version":
    from ddim_jax import __version__

    print(__version__)
    return
  if name not in COMMANDS:
    sys.stderr.write(f"error: there is no command {name!r}: one of {', '.join(COMMANDS)}\n")
    sys.exit(2)
  importlib.import_module(f"ddim_jax.commands.{COMMANDS[name][0]}").main(rest)
