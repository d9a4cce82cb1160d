"""Serves the page: to this machine alone unless told otherwise, with bounds on what it takes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from gradio import Blocks
from starlette.middleware import Middleware

from ddim_jax.app.uploads import MOST_BYTES

_STYLE = Path(__file__).with_name("style.css")
_MOST = 2 * MOST_BYTES
"""Bytes of a request: a picture as text, and all else."""


class Bounded:
  """Ends a request that is larger than ``most`` bytes with status 413, before it is kept anywhere."""

  def __init__(self, app: Callable[..., Any], most: int):
    self.app, self.most = app, most

  async def __call__(self, scope: Any, receive: Callable[[], Any], send: Callable[..., Any]) -> None:
    """One request."""
    if scope["type"] != "http":
      await self.app(scope, receive, send)
      return
    told = dict(scope["headers"]).get(b"content-length", b"0")
    if not told.isdigit() or int(told) > self.most or b"transfer-encoding" in dict(scope["headers"]):
      await send({"type": "http.response.start", "status": 413, "headers": [(b"content-length", b"0")]})
      await send({"type": "http.response.body", "body": b""})
      return
    await self.app(scope, receive, send)


def serve(page: Blocks, host: str, port: int, opened: Callable[[str], None]) -> None:
  """Serves until interrupted.

  Args:
    page: From `ddim_jax.app.layout.build`.
    host: Address to listen on.
    port: Port, or 0 for one that is free.
    opened: Is told the address.

  Raises:
    OSError: If the port is taken.
  """
  page.queue(max_size=64)
  _, address, _ = page.launch(
    server_name=host, server_port=port, share=False, prevent_thread_lock=True, quiet=True, css_paths=_STYLE,
    footer_links=[], run_history=False, ssr_mode=False, enable_monitoring=False, mcp_server=False, pwa=False,
    max_file_size=1, app_kwargs={"middleware": [Middleware(Bounded, most=_MOST)]},
  )  # fmt: skip
  opened(address)
  page.block_thread()
