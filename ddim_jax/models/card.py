"""What stands beside a model's files when they are given to others: a card in Markdown."""

from ddim_jax.models import tree
from ddim_jax.models.config import UNKNOWN
from ddim_jax.models.model import Model

_PREDICTS = {
  "eps": "the noise",
  "x0": "the clean image",
  "v": "v",
  "edm": "EDM's output",
  "flow": "a velocity",
}


def card(model: Model, name: str, *, diffusers: str | None = None, picture: str | None = None) -> str:
  """The card: what the model is, how it was trained, and how to draw from it.

  Args:
    model: The model.
    name: Under which others load it, such as OWNER/NAME of a hub.
    diffusers: The pipeline of diffusers that draws from its files, such as DDIMPipeline; None for none.
    picture: File of a grid of its samples, beside the card; None for none.

  Returns:
    Markdown, with the metadata that hubs read before it.
  """
  rows = {"Images": "x".join(map(str, model.shape)), **_network(model), **_training(model)}
  table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
  tags = ["ddim", "diffusion", *(["diffusers"] if diffusers else [])]
  asked = f', label="{model.classes[0]}"' if model.classes else ""
  title, shown = name.rsplit("/", 1)[-1], "" if picture is None else f"![Samples]({picture})\n\n"
  theirs = f"""
With diffusers:

```python
from diffusers import {diffusers}

images = {diffusers}.from_pretrained("{name}")(num_inference_steps={model.own_steps}).images
```
"""
  return f"""---
library_name: {"diffusers" if diffusers else "ddim_jax"}
pipeline_tag: unconditional-image-generation
tags: [{", ".join(tags)}]
---

# {title}

{shown}| | |
|---|---|
{table}

```python
import ddim_jax

model = ddim_jax.load("{name}")
images = model.sample(16, steps={model.own_steps}{asked})
```
{theirs if diffusers else ""}"""


def _network(model: Model) -> dict[str, str]:
  rows = {"Network": f"{type(model.network).__name__}, {tree.size(model.params):,} parameters"}
  if model.config.imported is None and not model.config.custom:
    noise = model.config.diffusion
    rows["Noise"] = f"{noise.schedule}, {noise.levels:,} levels; predicts {_PREDICTS[noise.predict]}"
  else:
    rows["Noise"] = f"{model.schedule.T:,} levels"
  if model.config.distilled:
    rows["Steps"] = f"distilled for {model.config.distilled}"
  if model.classes:
    rows["Classes"] = ", ".join(model.classes)
  return rows


def _training(model: Model) -> dict[str, str]:
  if not model.step:
    return {}
  how, data = model.config.optimisation, model.config.data.data
  return {
    "Data": "not said" if data == UNKNOWN else data,
    "Training": f"{model.step:,} updates of {how.batch_size} images; {how.optimizer}, learning rate"
    f" {how.learning_rate:g}, EMA {how.ema:g}",
  }
