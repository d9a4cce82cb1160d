# %% [markdown]
# # Solvers and steps
# The same noise by several solvers, with the same number of evaluations of the network, against 200 steps of
# DDIM.

# %%
import numpy as np

import ddim_jax
from ddim_jax import plots
from ddim_jax.models.tables import steps_for

model = ddim_jax.load("fashion_mnist")
exact = model.sample(8, steps=200)
evaluations, names = 10, ("ddim", "dpmpp-2m", "unipc2")

# %%
found = {name: model.sample(8, steps=steps_for(name, evaluations), solver=name) for name in names}
for name, images in found.items():
  print(f"{name:10} differs from the exact solution by {np.sqrt(np.mean((images - exact) ** 2)):.3f} (RMS)")

# %%
rows = found | {"200 steps": exact}
plots.to_image(plots.labelled(np.concatenate([model.pictures(x) for x in rows.values()]), list(rows)))
