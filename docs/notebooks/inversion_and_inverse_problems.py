# %% [markdown]
# # Inversion, editing and inverse problems
# What a trained model can do with pictures that are there: find their noise, change them, fill in what is
# missing. The pictures are drawn by another seed here; yours go through `model.scaling.to_data`.

# %%
import jax
import jax.numpy as jnp
import numpy as np

import ddim_jax
from ddim_jax import plots

model = ddim_jax.load("fashion_mnist_classes")
labels = np.array([0, 1, 3, 5, 7, 8])
names = [model.classes[i] for i in labels]
images = jnp.asarray(model.sample(6, steps=30, label=labels, guidance=2.0, seed=4))
keys = ddim_jax.image_keys(jax.random.key(0), jnp.arange(6))
noise = ddim_jax.initial_noise(keys, images.shape)


def show(**rows):
  pictures = np.concatenate([model.pictures(np.asarray(row)) for row in rows.values()])
  return plots.to_image(plots.labelled(pictures, [name.replace("_", " ") for name in rows], names))


show(pictures=images)

# %% [markdown]
# ## Inversion
# Deterministic DDIM is a differential equation, and runs both ways. A step up is exact where it is
# refined: `refine` is the most iterations that each may take. No class is needed for it.

# %%
ts = model.levels(20)


@jax.jit
def decode(model, code):
  return ddim_jax.sample(keys, model.denoiser(clip=False), model.schedule, code, ts)[0]


codes, decoded = {}, {}
for refine in (0, 10):
  codes[refine] = model.invert(images, steps=20, refine=refine)
  decoded[refine] = decode(model, codes[refine])
  error = jnp.mean((decoded[refine] - images) ** 2) / 4  # pixels in [0, 1]
  print(f"refine {refine:2}: mean squared error {error:.1e}")
show(original=images, its_noise=codes[10], decoded=decoded[10], not_refined=decoded[0])

# %% [markdown]
# ## From one picture to another
# The noises of two pictures, and great circles between them.

# %%
weights = jnp.linspace(0, 1, 8)


@jax.jit
def way(model, a, b):
  return ddim_jax.interpolate(keys[:1], model.denoiser(clip=False), model.schedule, a, b, ts, weights)


between = way(model, codes[10][3:4], codes[10][4:5])[:, 0]
plots.to_image(plots.labelled(model.pictures(np.asarray(between)), columns=[f"{w:.2f}" for w in weights]))

# %% [markdown]
# ## Editing
# `encode_noises` records what noise a stochastic sampler would have had to draw. With the same class the
# pictures come back exactly; with another, what both have in common stays. The fewer of the steps are
# taken, the less may change.

# %%
boots = np.full(6, model.classes.index("Ankle boot"))
levels = ddim_jax.timesteps.cut(ts, 0.7)


@jax.jit
def encode(model, images, labels):
  denoise = model.denoiser(label=labels, guidance=2.0)
  return ddim_jax.encode_noises(keys, denoise, model.schedule, images, levels)


@jax.jit
def follow(model, maps, labels):
  denoise = model.denoiser(label=labels, guidance=2.0)
  return ddim_jax.decode_noises(denoise, model.schedule, maps, levels)


maps = encode(model, images, labels)
show(original=images, same_class=follow(model, maps, labels), ankle_boot=follow(model, maps, boots))

# %% [markdown]
# ## Inpainting
# Where the mask is True, the picture is kept. RePaint walks stretches of the way several times, so that
# the new part fits the old one.

# %%
mask = jnp.zeros((28, 28, 1), bool).at[:14].set(True)
walked = ddim_jax.timesteps.repaint(ts, jump=2, repeats=3)


@jax.jit
def paint(model, images):
  denoise = ddim_jax.inpaint(model.denoiser(label=labels), mask, images, model.schedule)
  solver = ddim_jax.repaint(ddim_jax.ddim(1.0))
  return ddim_jax.sample(keys, denoise, model.schedule, noise, walked, solver=solver)[0]


show(original=images, kept=jnp.where(mask, images, 0), painted=paint(model, images))

# %% [markdown]
# ## Any linear measurement
# `constrain` projects each prediction onto what fits a measurement: here the means of squares of 4 x 4
# pixels. The result fits it to rounding; the rest is the model's. Others are `masked`, `colourisation`,
# and any `LinearOperator` of yours.

# %%
operator = ddim_jax.super_resolution(4)
small = operator.apply(images)


@jax.jit
def restore(model, small):
  denoise = ddim_jax.constrain(model.denoiser(label=labels), small, operator, model.schedule)
  return ddim_jax.sample(keys, denoise, model.schedule, noise, ts)[0]


sharp = restore(model, small)
print(f"largest misfit {jnp.abs(operator.apply(sharp) - small).max():.1e}")
show(original=images, measured=jnp.repeat(jnp.repeat(small, 4, axis=1), 4, axis=2), restored=sharp)
