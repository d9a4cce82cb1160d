"""Draws four images of a run in floating point: ``python -m tests.programs.draw_floats FOLDER x.npy``."""

import sys
from pathlib import Path

import jax
import numpy as np

import ddim_jax
from ddim_jax import load


def draw_floats(trained):
  """Four images in floating point."""
  keys = ddim_jax.image_keys(jax.random.key(0), np.arange(4))
  x_T = ddim_jax.initial_noise(keys, (4, *trained.shape))
  denoise = trained.denoiser(clip=False)
  ts = ddim_jax.timesteps.uniform(1000, 5)
  return ddim_jax.sample(keys, denoise, trained.schedule, x_T, ts)[0]


if __name__ == "__main__":
  np.save(sys.argv[2], draw_floats(load(Path(sys.argv[1]))))
