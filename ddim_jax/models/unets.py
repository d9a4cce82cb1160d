"""The U-Net that options stand for, and whether one of another project fits the data."""

from typing import Any

import jax.numpy as jnp

from ddim_jax.models.config import Network
from ddim_jax.unet import UNet


def from_options(options: Network, channels: int, num_classes: int, condition_size: int = 0) -> UNet:
  """The network for images of so many channels, and a data set of so many classes and numbers of a condition.

  Raises:
    ValueError: If it is to be conditional and there are no classes.
  """
  if options.conditional and not num_classes:
    raise ValueError("a conditional network needs a data set with classes; this one has none")
  return UNet(
    channels=options.channels,
    multipliers=options.multipliers,
    blocks=options.blocks,
    attention=options.attention,
    dropout=options.dropout,
    out_channels=channels,
    num_classes=num_classes if options.conditional else None,
    groups=options.groups,
    dtype=jnp.dtype(options.dtype),
    remat=options.remat,
    conv=options.conv,
    condition_size=condition_size or None,
  )


def check_fits(network: UNet, channels: int, num_classes: int) -> None:
  """Raises ValueError unless a network with weights can be used with so many channels and classes."""
  if network.in_channels != channels or network.out_channels not in (channels, 2 * channels):
    raise ValueError(
      f"the imported network goes from {network.in_channels} to {network.out_channels} channels; here images"
      f" have {channels}"
    )
  if network.label_embedding is not None:
    raise ValueError("class_embed_type must be None here: use such a network as a library")
  if network.num_classes is not None and not 1 <= num_classes <= network.num_classes:
    raise ValueError(
      f"the imported network is conditional on {network.num_classes} classes and needs a data set with at"
      f" least one and at most so many, got {num_classes}"
    )


def predicts_variance(network: Any) -> bool:
  """Whether a network has as many channels again, which say where between two bounds its variances lie."""
  return isinstance(network, UNet) and network.out_channels == 2 * network.input_channels


def null_label(network: UNet, num_classes: int) -> int | None:
  """The label that stands for "no class", or None if the network has none.

  The table of an imported network has one where it is longer than there are classes: its last row.
  """
  if network.num_classes is None:
    return None
  if network.null_class:
    return network.num_classes
  return network.num_classes - 1 if network.num_classes > num_classes else None
