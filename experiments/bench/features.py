"""Features of colour images against torch with the same weights: ``python -m experiments.bench features``."""

from pathlib import Path
from unittest import mock

import jax
import numpy as np

from ddim_jax.metrics import efficientnet
from experiments.bench import measure

_OURS, _PLAIN = "ddim_jax", "ddim_jax, as on an accelerator"


def features(batch_size: int = 64, rounds: int = 5, out: Path = measure.OUT) -> None:
  """EfficientNet-Lite0 on images of 32x32 pixels, resizing included, compared before anything is timed.

  Args:
    batch_size: Images a call.
    rounds: How often each side is measured, in turn.
    out: Folder for the JSON and the chart.
  """
  measure.positive(batch_size=batch_size, rounds=rounds)
  import torch
  from efficientnet_lite_pytorch import EfficientNet

  images = np.random.default_rng(0).integers(0, 256, (batch_size, 32, 32, 3), np.uint8)
  look = efficientnet.extractor().apply
  ours = jax.jit(lambda images: look(images)[0])
  ours(images)  # traced here, so that what follows is in the other side only
  plain = jax.jit(lambda images: look(images)[0])
  with (
    mock.patch.object(efficientnet, "_depthwise", jax.lax.conv_general_dilated),
    mock.patch.object(efficientnet, "in_parts", lambda apply, images: apply(images)),
  ):
    plain(images)
  network = EfficientNet.from_name("efficientnet-lite0").eval().to(memory_format=torch.channels_last)
  weights = efficientnet.installed()
  network.load_state_dict(torch.load(weights, weights_only=True))

  def torchs() -> np.ndarray:
    with torch.inference_mode():
      x = torch.from_numpy(images).permute(0, 3, 1, 2).float()
      x = torch.nn.functional.interpolate(x, (224, 224), mode="bilinear", antialias=True)
      return network.extract_features((x - 127) / 128).mean((2, 3)).numpy()

  sides: measure.Sides = {
    _OURS: lambda: np.asarray(ours(images)),
    _PLAIN: lambda: np.asarray(plain(images)),
    "torch, channels_last": torchs,
  }
  difference = max(float(np.abs(side() - sides[_OURS]()).max()) for side in sides.values())
  if difference > 1e-4:
    raise ValueError(f"all sides must agree to 1e-4, got {difference:.2g}")
  work = batch_size * 2 * 0.407  # the authors' count of multiplications and additions, as two operations
  results = measure.compare(sides, rounds, batch_size, work, _OURS)
  settings = {"batch_size": batch_size, "rounds": rounds, "largest_difference": difference}
  measure.report(
    f"features_b{batch_size}", settings | results, out, measure.times(results), "seconds an image"
  )
