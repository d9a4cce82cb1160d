"""A small classifier of 28x28 grey images, for distances where there are no Inception weights.

The Frechet distance on its features is called FD-classifier, never FID. It comes with weights for real
Fashion-MNIST (2,000 steps: 87.3 % of the 10,000 test images right) and for scikit-learn's digits (220 steps:
97.8 % of the 360 digits kept out), made by ``python -m experiments.studies.train_classifier``. Images of
another size are resized to 28x28.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from ddim_jax.atomic import replacing
from ddim_jax.metrics.converted import sha256

SIDE = 28
FEATURES = 128
WEIGHTS = {
  name: Path(__file__).parent / f"classifier_{name}.safetensors" for name in ("digits", "fashion_mnist")
}
"""The files that come with the package, by data set."""


class Classifier(nn.Module):
  """Four convolutions, a mean over positions (the features), and a linear layer.

  Attributes:
    classes: Number of classes.
  """

  classes: int = 10

  @nn.compact
  def __call__(self, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Features and logits.

    Args:
      images: ``u8[B, H, W, 1]``.

    Returns:
      ``(features: f32[B, 128], logits: f32[B, classes])``.

    Raises:
      ValueError: At trace time, if the images are not bytes: they would be of another range.
    """
    if images.dtype != jnp.uint8 or images.ndim != 4 or images.shape[-1] != 1:
      raise ValueError(f"images must be uint8 in [0, 255], [B, H, W, 1], got {images.dtype}{images.shape}")
    x = images.astype(jnp.float32) / 127.5 - 1
    x = jax.image.resize(x, (x.shape[0], SIDE, SIDE, x.shape[3]), "linear", antialias=False)
    for width, size, stride in ((32, 5, 2), (64, 3, 1), (64, 3, 2), (FEATURES, 3, 1)):
      x = nn.relu(nn.Conv(width, (size, size), strides=stride, kernel_init=nn.initializers.he_normal())(x))
    features = jnp.mean(x, axis=(1, 2))
    return features, nn.Dense(self.classes)(features)


class Extractor(NamedTuple):
  """A network that looks at images, and what it is called.

  Attributes:
    name: Such as "FD-classifier (fashion_mnist)": what distances on its features are called.
    sha256: Of the weights' file.
    apply: ``images: u8[B, H, W, C] -> (features: f32[B, D], logits: f32[B, K])``.
  """

  name: str
  sha256: str
  apply: Any


def save(path: Path, params: Mapping[str, Any], metadata: dict[str, str]) -> None:
  """Writes parameters as float16 safetensors."""
  from safetensors.numpy import save_file

  flat = flax.traverse_util.flatten_dict(dict(params), sep=".")
  arrays = {name: np.asarray(value, np.float16) for name, value in flat.items()}
  with replacing(path) as partial:
    save_file(arrays, str(partial), metadata=metadata)
  path.chmod(0o644)  # the library makes files that only their owner can read


def load(path: Path) -> dict[str, Any]:
  """Reads what `save` wrote, as float32.

  Raises:
    ValueError: If the file does not hold this network.
  """
  from safetensors.numpy import load_file

  arrays = {name: value.astype(np.float32) for name, value in load_file(str(path)).items()}
  params = flax.traverse_util.unflatten_dict(arrays, sep=".")
  images = jax.ShapeDtypeStruct((1, SIDE, SIDE, 1), jnp.uint8)
  expected = jax.eval_shape(Classifier().init, jax.random.key(0), images)["params"]
  shapes = lambda tree: jax.tree.map(lambda x: x.shape, tree)
  if shapes(params) != shapes(expected):
    raise ValueError(f"{path} does not hold the weights of this classifier")
  found: dict[str, Any] = params
  return found


def extractor(name: str) -> Extractor:
  """The classifier of a data set, with the weights that come with the package.

  Args:
    name: ``"fashion_mnist"`` or ``"digits"``.

  Raises:
    ValueError: If there is no classifier of that name.
  """
  if name not in WEIGHTS:
    raise ValueError(f"classifier must be one of {sorted(WEIGHTS)}, got {name!r}")
  path = WEIGHTS[name]
  params = load(path)
  apply = lambda images: Classifier().apply({"params": params}, images)
  return Extractor(f"FD-classifier ({name})", sha256(path), apply)
