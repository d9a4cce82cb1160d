"""``ddim play``: serves a page for a browser."""

import os
import socket
from collections.abc import Sequence
from typing import Annotated

from ddim_jax.commands import options
from ddim_jax.console import say
from ddim_jax.ranges import Range


def free_port(host: str, port: int) -> int:
  """The port, or one that is free where it is 0.

  Raises:
    ValueError: If it is taken, or the machine has no such address.
  """
  with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as tried:
    tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
      tried.bind((host, port))
    except OSError as error:
      raise ValueError(
        f"host and port must be an address that is free, got {host}:{port}: {error}"
      ) from error
    return int(tried.getsockname()[1])


def play(
  model: options.Where = options.FEW,
  *,
  host: str = "127.0.0.1",
  port: Annotated[int, Range(0, 65535)] = 7860,
  image_size: options.Size = None,
  flags: options.Flags = None,
) -> None:
  """Serves a page where a model draws while you move its settings; edits your pictures; compares solvers.

  ddim play

  ddim play runs/mine --port 8000

  Args:
    model: The model.
    host: Address to listen on. By default only this machine; 0.0.0.0 is all who can reach it, unencrypted.
    port: Port to listen on; 0 takes one that is free.
    image_size: See `options.Size`.
    flags: See `options.Flags`.
  """
  os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
  found = options.model(model, size=image_size, flags=flags)
  options.check_pictures(found)
  from ddim_jax.app import layout, server  # needs Gradio

  port = free_port(host, port)
  server.serve(layout.build(found, model), host, port, lambda address: say(f"open {address}"))


def main(argv: Sequence[str]) -> None:
  """Parses, serves and exits."""
  options.run(play, argv, "ddim play")
