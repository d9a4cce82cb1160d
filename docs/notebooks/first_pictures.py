# %% [markdown]
# # First pictures
# A model that comes along draws clothes. Open this file as a notebook (Jupyter with jupytext does, and so
# does VS Code); it is kept as text, so that its changes can be read. Outputs are made when it is run.

# %%
import ddim_jax
from ddim_jax import data, plots

model = ddim_jax.load("fashion_mnist_classes")
model.classes

# %% [markdown]
# Image i of a seed is always the same image; by default it is of class i.

# %%
images = model.sample(10, steps=10, guidance=2.0)
plots.to_image(plots.enlarge(plots.grid(data.to_uint8(images), columns=5)))

# %% [markdown]
# More steps, more noise, another seed: nothing is compiled again.

# %%
noisy = model.sample(10, steps=20, guidance=2.0, eta=1.0, seed=1)
plots.to_image(plots.enlarge(plots.grid(data.to_uint8(noisy), columns=5)))

# %% [markdown]
# The same noise with few and with many steps.

# %%
rows = [data.to_uint8(model.sample(10, steps=steps, guidance=2.0)) for steps in (3, 5, 10, 20)]
blocks = [[plots.enlarge(plots.grid(row, columns=10))] for row in rows]
plots.to_image(plots.table(blocks, [f"S = {steps}" for steps in (3, 5, 10, 20)], [""]))
