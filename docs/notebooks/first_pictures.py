# %% [markdown]
# # First pictures
# A model that comes along draws clothes.

# %%
import numpy as np

import ddim_jax
from ddim_jax import plots

model = ddim_jax.load("fashion_mnist_classes")
model.classes

# %% [markdown]
# Image i of a seed is always the same image; by default it is of class i.

# %%
images = model.sample(20, steps=10, guidance=2.0)  # f32[20, 28, 28, 1] in [-1, 1]
plots.to_image(plots.labelled(model.pictures(images), columns=model.classes))

# %% [markdown]
# More steps, more noise, another seed: nothing is compiled again.

# %%
noisy = model.sample(20, steps=20, guidance=2.0, eta=1.0, seed=1)
plots.to_image(plots.labelled(model.pictures(noisy), columns=model.classes))

# %% [markdown]
# The same noise with few and with many steps.

# %%
counts = (3, 5, 10, 20, 50)
rows = [model.pictures(model.sample(10, steps=steps, guidance=2.0)) for steps in counts]
plots.to_image(plots.labelled(np.concatenate(rows), [f"S = {steps}" for steps in counts], model.classes))
