# %% [markdown]
# # Train on your own arrays
# Any array of pictures with what its numbers mean. Here: handwritten digits, 8 x 8 pixels, and their classes.

# %%
from sklearn.datasets import load_digits

import ddim_jax
from ddim_jax import plots, runs

digits = load_digits()
images = (digits.images[..., None] * 255 / 16).astype("uint8")
plots.to_image(plots.labelled(images[:20], columns=[str(number) for number in digits.target[:10]]))

# %% [markdown]
# `fit` goes on with what lies in its folder: interrupt it, run it again, or ask for more steps, which draw
# better digits.

# %%
network = ddim_jax.UNet(
  channels=16, multipliers=(1, 2), blocks=1, attention=(), groups=8, out_channels=1, num_classes=10
)
losses = []
model = runs.fit(
  "runs/notebook", network, images, labels=digits.target, steps=800, batch_size=64, learning_rate=2e-3,
  warmup=50, ema=0.99, sample_every=0, log=lambda step, values: losses.append(values["loss"]),
)  # fmt: skip
print(f"loss {losses[0]:.3f} at first, {losses[-1]:.3f} at last")

# %%
samples = model.sample(20, steps=20, guidance=2.0)
plots.to_image(plots.labelled(model.pictures(samples), columns=model.classes))
