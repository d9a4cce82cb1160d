"""Weights and configurations of other projects, in and out: diffusers, and the original DDIM code.

Reading safetensors needs the package safetensors; ``.bin``, ``.ckpt`` and ``.pth`` need torch. Both are
imported where they are used.
"""

from ddim_jax.interop.assembly import describe
from ddim_jax.interop.diffusers import folder_of, load_diffusers, save_diffusers
from ddim_jax.interop.original import load_ddim
from ddim_jax.interop.ours import from_ours
from ddim_jax.interop.pretrained import Pretrained, like_diffusers

__all__ = [
  "Pretrained",
  "describe",
  "folder_of",
  "from_ours",
  "like_diffusers",
  "load_ddim",
  "load_diffusers",
  "save_diffusers",
]
