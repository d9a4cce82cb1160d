"""A batch in small parts, one after the other, whose intermediate results stay in a processor's caches."""

from collections.abc import Callable
from typing import Any

import jax

_IMAGES = 8


def in_parts(apply: Callable[[jax.Array], Any], images: jax.Array) -> Any:
  """``apply(images)``, on a CPU for a few images at a time.

  Args:
    apply: ``[B, ...] -> a tree of [B, ...]``, for each image by itself.
    images: ``[B, ...]``. Traced.
  """
  one = lambda image: jax.tree.map(lambda result: result[0], apply(image[None]))
  few = lambda images: jax.lax.map(one, images, batch_size=_IMAGES)
  return jax.lax.platform_dependent(images, cpu=few, default=apply)
