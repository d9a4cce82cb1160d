"""The paper's network: `UNet`, its layers, and what computes its operations on which platform."""

from ddim_jax.unet.layers import RandomFourier, Sinusoids, time_embedding
from ddim_jax.unet.network import UNet

__all__ = ["RandomFourier", "Sinusoids", "UNet", "time_embedding"]
