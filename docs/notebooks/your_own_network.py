# %% [markdown]
# # Your own network
# A network is anything that maps samples and their levels to an array of the samples' shape. Here the same
# small network is written four times: as a pair of functions, and as a module of NNX, of Equinox and of
# Haiku.

# %%
import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from sklearn.datasets import load_digits

import ddim_jax
from ddim_jax import models, plots, runs

digits = load_digits()
images = (digits.images[..., None] * 255 / 16).astype("uint8")  # u8[1797, 8, 8, 1]
WIDTH = 192

# %% [markdown]
# Each sees the 64 pixels of `x_t`, `f32[B, 8, 8, 1]`, and waves of its level `t`, `[B]`, from 1 to 1000.


# %%
def features(x, t):
  waves = t[:, None] / 1000 * jnp.pi * 2.0 ** jnp.arange(6)
  return jnp.concatenate([x.reshape(len(x), -1), jnp.sin(waves), jnp.cos(waves)], axis=1)


SIZES = ((64 + 12, WIDTH), (WIDTH, WIDTH), (WIDTH, 64))

# %% [markdown]
# ## A pair of functions
# `init` makes the parameters, any pytree of arrays; `apply` is the network.


# %%
def init(key, x_t, t):
  keys = jax.random.split(key, len(SIZES))
  return [
    {"kernel": jax.random.normal(k, size) * size[0] ** -0.5, "bias": jnp.zeros(size[1])}
    for k, size in zip(keys, SIZES, strict=True)
  ]


def apply(params, x_t, t):
  h = features(x_t, t)
  for layer in params[:-1]:
    h = jax.nn.silu(h @ layer["kernel"] + layer["bias"])
  return (h @ params[-1]["kernel"] + params[-1]["bias"]).reshape(x_t.shape)


# %% [markdown]
# ## NNX


# %%
class InNnx(nnx.Module):
  def __init__(self, rngs):
    self.layers = nnx.List([nnx.Linear(*size, rngs=rngs) for size in SIZES])

  def __call__(self, x_t, t):
    h = features(x_t, t)
    for layer in self.layers[:-1]:
      h = jax.nn.silu(layer(h))
    return self.layers[-1](h).reshape(x_t.shape)


# %% [markdown]
# ## Equinox
# Its modules are called with a whole batch, so layers of single examples are mapped over it.


# %%
class InEquinox(eqx.Module):
  layers: list

  def __init__(self, key):
    keys = jax.random.split(key, len(SIZES))
    self.layers = [eqx.nn.Linear(*size, key=k) for k, size in zip(keys, SIZES, strict=True)]

  def __call__(self, x_t, t):
    h = features(x_t, t)
    for layer in self.layers[:-1]:
      h = jax.nn.silu(jax.vmap(layer)(h))
    return jax.vmap(self.layers[-1])(h).reshape(x_t.shape)


# %% [markdown]
# ## Haiku


# %%
def in_haiku(x_t, t):
  return hk.nets.MLP([WIDTH, WIDTH, 64], activation=jax.nn.silu)(features(x_t, t)).reshape(x_t.shape)


# %% [markdown]
# ## Training each
# `models.from_network` says what a network predicts, here v, and for which shape; `runs.fit` trains it.
# That takes seconds; a network with convolutions, trained for longer, draws better digits.

# %%
networks = {
  "functions": (init, apply),
  "NNX": InNnx(nnx.Rngs(0)),
  "Equinox": InEquinox(jax.random.key(0)),
  "Haiku": hk.transform(in_haiku),
}
trained = {}
for name, network in networks.items():
  losses = []
  trained[name] = runs.fit(
    f"runs/{name}", models.from_network(network, (8, 8, 1), parameterisation=ddim_jax.V), images, steps=1500,
    batch_size=128, learning_rate=3e-3, warmup=50, ema=0.98, sample_every=0,
    log=lambda step, values, losses=losses: losses.append(values["loss"]),
  )  # fmt: skip
  print(f"{name:10} loss {np.mean(losses[:20]):.3f} at first, {np.mean(losses[-100:]):.3f} at last")

# %%
rows = [model.pictures(model.sample(12, steps=30)) for model in trained.values()]
plots.to_image(plots.labelled(np.concatenate(rows), list(trained), [""] * 12))

# %% [markdown]
# Files of a run hold no code: to load it again, say which network it is.

# %%
again = ddim_jax.load("runs/functions", like=trained["functions"])
np.abs(again.sample(4, steps=5) - trained["functions"].sample(4, steps=5)).max()
