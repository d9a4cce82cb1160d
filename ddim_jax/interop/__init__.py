"""Weights and configurations of other projects: diffusers in and out, DDIM's code and guided-diffusion in.

``.bin``, ``.ckpt``, ``.pth`` and ``.pt`` need torch, which is imported where it is used.
"""

from ddim_jax.interop.adm import load_adm
from ddim_jax.interop.adm_classifier import load_adm_classifier
from ddim_jax.interop.assembly import describe
from ddim_jax.interop.diffusers import folder_of, load_diffusers, pipeline_of, save_diffusers
from ddim_jax.interop.original import load_ddim
from ddim_jax.interop.ours import from_ours
from ddim_jax.interop.pretrained import Pretrained, like_diffusers

__all__ = [
  "Pretrained",
  "describe",
  "folder_of",
  "from_ours",
  "like_diffusers",
  "load_adm",
  "load_adm_classifier",
  "load_ddim",
  "load_diffusers",
  "pipeline_of",
  "save_diffusers",
]
