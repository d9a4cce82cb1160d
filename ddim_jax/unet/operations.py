"""What computes the network's convolutions and norms on which platform: the same functions, up to rounding.

The platform is that of the program, not of the machine it is traced on: the choice is made at lowering.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ddim_jax.convolution import direct
from ddim_jax.cpu import groups, winograd

_CHANNELS, _HEIGHT = 64, 7


class Operations(NamedTuple):
  """The operations that platforms compute in different ways.

  Attributes:
    convolve: ``([B, H, W, C], [3, 3, C, D]) -> [B, H, W, D]``, zero padding, stride 1.
    average: ``([..., C], groups) -> [..., groups]``, means over the channels of each group.
    spread: ``([..., groups], C) -> [..., C]``, the value of its group for each channel.
  """

  convolve: Callable[[jax.Array, jax.Array], jax.Array]
  average: Callable[[jax.Array, int], jax.Array]
  spread: Callable[[jax.Array, int], jax.Array]


def _average(values: jax.Array, number: int) -> jax.Array:
  return values.reshape(*values.shape[:-1], number, -1).mean(axis=-1)


def _spread(values: jax.Array, number: int) -> jax.Array:
  return jnp.repeat(values, number // values.shape[-1], axis=-1)


def _winograd_pays(x: jax.Array, kernel: jax.Array) -> bool:
  """Whether Winograd's algorithm is expected to be faster on a CPU, and as precise.

  With fewer than 64 channels on either side the transforms cost what the products save, on images under
  7x7 that of the kernel does, and in narrow types its rounding is not that of the definition.
  """
  large = min(kernel.shape[2:]) >= _CHANNELS and min(x.shape[1:3]) >= _HEIGHT
  return large and jnp.finfo(x.dtype).bits >= 32


def _where_it_pays(x: jax.Array, kernel: jax.Array) -> jax.Array:
  return winograd.convolve(x, kernel) if _winograd_pays(x, kernel) else direct(x, kernel)


@jax.jit
def _auto(x: jax.Array, kernel: jax.Array) -> jax.Array:
  if not _winograd_pays(x, kernel):
    return direct(x, kernel)
  found: jax.Array = jax.lax.platform_dependent(x, kernel, cpu=winograd.convolve, default=direct)
  return found


def _by_platform(cpu: Any, default: Any) -> Any:
  choose = jax.lax.platform_dependent
  return lambda x, number: choose(x, cpu=partial(cpu, number=number), default=partial(default, number=number))


_CONVOLUTIONS: dict[str, tuple[Callable[[jax.Array, jax.Array], jax.Array], ...]] = {
  "auto": (_auto, _where_it_pays, direct),
  "direct": (direct, direct, direct),
  "winograd": (winograd.convolve, winograd.convolve, winograd.convolve),
}


class Choice(NamedTuple):
  """Operations for a network.

  Attributes:
    lowered: Chosen when the program is lowered, for its platform.
    cpu: Those of a CPU.
    default: Those of all other platforms.
  """

  lowered: Operations
  cpu: Operations
  default: Operations


@cache
def named(conv: str) -> Choice:
  """The operations for a network's setting of ``conv``, see `ddim_jax.UNet`.

  Raises:
    ValueError: If it is none of "auto", "direct", "winograd".
  """
  if conv not in _CONVOLUTIONS:
    raise ValueError(f"conv must be one of {', '.join(_CONVOLUTIONS)}, got {conv!r}")
  lowered, cpu, default = _CONVOLUTIONS[conv]
  average, spread = _by_platform(groups.average, _average), _by_platform(groups.spread, _spread)
  return Choice(
    Operations(lowered, average, spread),
    Operations(cpu, groups.average, groups.spread),
    Operations(default, _average, _spread),
  )
