"""Trains the classifier of FD-classifier: ``python -m experiments.studies.train_classifier``."""

import sys
import time
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ddim_jax import data
from ddim_jax.commands import options
from ddim_jax.metrics import classifier
from ddim_jax.ranges import Positive


def _sources(name: str, directory: Path) -> tuple[data.Source, data.Source]:
  """Training and test images; every fifth digit is for the test, since that set has no split."""
  train = data.load_builtin(name, "train", directory)
  if name != "digits":
    return train, data.load_builtin(name, "test", directory)
  images, labels = train.read(np.arange(train.size))
  test = np.arange(train.size) % 5 == 0
  part = lambda name, chosen: data.in_memory(name, images[chosen], labels[chosen], train.classes)
  return part("digits, four fifths", ~test), part("digits, every fifth", test)


def _shifted(key, images):
  """Each image moved by up to two pixels on both axes, black moving in."""
  height, width = images.shape[1:3]
  reach = 2 if height >= classifier.SIDE else 0
  padded = jnp.pad(images, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
  offsets = jax.random.randint(key, (len(images), 2), 0, 2 * reach + 1)
  cut = lambda image, o: jax.lax.dynamic_slice(image, (o[0], o[1], 0), (height, width, image.shape[-1]))
  return jax.vmap(cut)(padded, offsets)


def train(
  data_set: Literal["fashion_mnist", "digits"] = "fashion_mnist",
  *,
  data_dir: Path | None = None,
  out: Path = Path("classifier.safetensors"),
  steps: Positive = 2000,
  batch_size: Positive = 128,
  learning_rate: float = 2e-3,
  seed: int = 0,
) -> None:
  """Trains on the training images, prints the accuracy on the test images, writes safetensors.

  Args:
    data_set: Data set.
    data_dir: Where TFDS keeps data sets.
    out: File to write; the one in ddim_jax/metrics is classifier_DATA.safetensors.
    steps: Updates.
    batch_size: Images an update.
    learning_rate: Of Adam, falling to 0 along a cosine.
    seed: Decides initialisation, order and shifts.
  """
  source, test = _sources(data_set, data_dir or data.default_data_dir())
  model = classifier.Classifier(len(source.classes))
  key = jax.random.key(seed)
  params = model.init(key, jnp.zeros((1, *source.shape), jnp.uint8))["params"]
  optimizer = optax.adamw(optax.cosine_decay_schedule(learning_rate, steps), weight_decay=1e-3)
  state = optimizer.init(params)

  @jax.jit
  def update(params, state, step, images, labels):
    images = _shifted(jax.random.fold_in(key, step), images)

    def loss(params):
      logits = model.apply({"params": params}, images)[1]
      return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))

    value, grads = jax.value_and_grad(loss)(params)
    updates, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, updates), state, value

  began = time.monotonic()
  make = lambda step: data.batch_at(source, step, batch_size=batch_size, seed=seed)
  for step, (images, labels, _) in enumerate(data.prefetch(make, 0, steps)):
    params, state, value = update(params, state, jnp.int32(step), images, labels)
    if (step + 1) % 200 == 0:
      print(f"step {step + 1:,}: loss {float(value):.3f}, {time.monotonic() - began:.0f} s", flush=True)
  meta = {
    "data": source.name,
    "steps": str(steps),
    "licence": "MIT" if data_set != "digits" else "CC BY 4.0",
  }
  classifier.save(out, params, meta)
  accuracy = _accuracy(model, classifier.load(out), test)
  print(f"test accuracy {accuracy:.2%} of {test.size:,} images of {test.name}; wrote {out}")


def _accuracy(model, params, test: data.Source) -> float:
  predict = jax.jit(lambda images: jnp.argmax(model.apply({"params": params}, images)[1], axis=-1))
  right = 0
  for start in range(0, test.size, 500):
    images, labels = test.read(np.arange(start, min(start + 500, test.size)))
    right += int(np.sum(np.asarray(predict(images)) == labels))
  return right / test.size


if __name__ == "__main__":
  options.run(train, sys.argv[1:], "train_classifier")
