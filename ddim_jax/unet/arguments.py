"""Whether a U-Net's attributes go together, and fit what it is called with."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ddim_jax.checks import check_finite, check_floating, check_number, check_positive, check_range
from ddim_jax.schedules import Level

_OPTIONAL = ("in_channels", "num_classes", "embedding", "head_dim", "heads", "condition_size")


def check_arguments(
  network: Any,
  x_t: jax.Array | np.ndarray,
  t: Level,
  labels: jax.Array | None = None,
  keys: jax.Array | None = None,
  conditions: jax.Array | None = None,
) -> None:
  """Raises ValueError, at trace time, unless a `ddim_jax.UNet` can be called so; names what is wrong."""
  _check_attributes(network)
  check_floating("x_t", x_t)
  if not network.multipliers or network.blocks < 0 or network.groups < 1 or network.out_channels < 1:
    raise ValueError(
      "multipliers must not be empty, blocks at least 0, groups and out_channels at least 1, got"
      f" {network.multipliers}, {network.blocks}, {network.groups} and {network.out_channels}"
    )
  for name in _OPTIONAL:
    if (value := getattr(network, name)) is not None and value < 1:
      raise ValueError(f"{name} must be None or at least 1, got {value}")
  if network.resample not in ("conv", "block", "pool"):
    raise ValueError(f"resample must be conv, block or pool, got {network.resample!r}")
  if network.head_dim is not None and network.heads is not None:
    raise ValueError(f"give head_dim or heads, not both: got {network.head_dim} and {network.heads}")
  if (
    network.channels < 4
    or network.channels % 2
    or any(network.width(level) < 1 for level in range(len(network.multipliers)))
    or any(network.width(level) % network.groups for level in range(len(network.multipliers)))
  ):
    raise ValueError(
      f"channels must be even, at least 4, and every width a multiple of groups = {network.groups}, got"
      f" channels {network.channels} with multipliers {network.multipliers}"
    )
  if x_t.ndim != 4 or x_t.shape[-1] != network.input_channels:
    raise ValueError(f"x_t must be [B, H, W, {network.input_channels}], got {x_t.shape}")
  factor = 2 ** (len(network.multipliers) - 1)
  if x_t.shape[1] % factor or x_t.shape[2] % factor:
    raise ValueError(
      f"image height and width must be multiples of {factor} for {len(network.multipliers)} levels,"
      f" got {x_t.shape[1]}x{x_t.shape[2]}"
    )
  heights = [x_t.shape[1] >> level for level in range(len(network.multipliers))]
  if network.attention_levels is None and (missing := set(network.attention) - set(heights)):
    raise ValueError(
      f"attention at heights {sorted(missing)}, but an image {x_t.shape[1]} high has levels of {heights}"
    )
  check_number("t", t)
  check_range("t", t, 1, jnp.inf)
  t = jnp.asarray(t)
  if t.ndim > 1 or (t.ndim == 1 and t.shape[0] not in (1, x_t.shape[0])):
    raise ValueError(f"t must be a scalar or [{x_t.shape[0]}], got shape {t.shape}")
  _check_given(network, x_t.shape[0], labels, keys, conditions)


def _check_attributes(network: Any) -> None:
  """Raises ValueError unless each attribute is a number of its kind."""
  whole = ("channels", "blocks", "groups", "out_channels", *_OPTIONAL)
  values = {name: (getattr(network, name),) for name in whole} | {"attention": tuple(network.attention)}
  for name, found in values.items():
    if not all(isinstance(v, int | np.integer) or (v is None and name in _OPTIONAL) for v in found):
      raise ValueError(f"{name} must be an integer, got {getattr(network, name)!r}")
  for name, numbers in (("multipliers", network.multipliers), ("eps", (network.eps,))):
    for number in numbers:
      check_positive(name, number)
  check_finite("dropout", network.dropout)
  if not 0 <= network.dropout < 1:
    raise ValueError(f"dropout must be in [0, 1), got {network.dropout}")
  try:
    floating = jnp.issubdtype(jnp.dtype(network.dtype), jnp.floating)
  except TypeError:
    floating = False
  if not floating:
    raise ValueError(f"dtype must be floating point, got {network.dtype!r}")


def _check_given(
  network: Any, batch: int, labels: jax.Array | None, keys: jax.Array | None, conditions: jax.Array | None
) -> None:
  if labels is not None and network.num_classes is None and network.label_embedding is None:
    raise ValueError("labels were given to a U-Net without num_classes")
  if labels is None and (
    network.label_embedding or (network.num_classes is not None and not network.null_class)
  ):
    raise ValueError("labels must be given: this U-Net is conditional and has no null class")
  if conditions is not None and network.condition_size is None:
    raise ValueError("conditions were given to a U-Net without condition_size")
  if conditions is not None and conditions.shape != (batch, network.condition_size):
    raise ValueError(f"conditions must be [{batch}, {network.condition_size}], got {conditions.shape}")
  if keys is not None and keys.shape != (batch,):
    raise ValueError(f"keys must be [{batch}], one for each image, got shape {keys.shape}")
  if labels is not None and network.label_embedding is None and labels.shape != (batch,):
    raise ValueError(f"labels must be [{batch}], got {labels.shape}")
  if labels is not None and network.label_embedding is None:
    if not jnp.issubdtype(labels.dtype, jnp.integer):
      raise ValueError(f"labels must be integers, got {labels.dtype}")
    check_range("labels", labels, 0, (network.num_classes or 0) - 1 + network.null_class)
