"""Real pictures made ones of another class, in four ways: ``python -m experiments.studies.edits``."""

import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from ddim_jax.commands import options, outputs
from ddim_jax.metrics import classifier
from ddim_jax.models import datasets, drawing, roundtrip
from ddim_jax.ranges import Positive, Real, Seed
from ddim_jax.seeds import key_of

_HEAD = """
| way | weight | reconstruction, MSE | taken for the new class | RMS distance to the original | lost |
|---|---|---|---|---|---|"""
_ROW = "| {way} | {weight:g} | {reconstruction:.1e} | {taken:.0%} | {distance:.2f} | {lost} |"


def edits(
  model: options.Where = options.CONDITIONAL,
  *,
  weights: tuple[Real, ...] = (1.0, 3.0, 7.5),
  steps: Positive = 50,
  num: Positive = 200,
  seed: Seed = 0,
  out: Path = Path("edits"),
) -> None:
  """Encodes test pictures as their class, decodes them as that class and as another; writes a table and JSON.

  Both have the same weight of guidance, and nothing is clipped. Image i becomes of the class 1 + i modulo 9
  after its own. Errors are of pictures in [0, 1]; of those that are not finite, lost is the number.

  Args:
    model: A conditional model of Fashion-MNIST.
    weights: Of guidance.
    steps: Number of steps S.
    num: Test pictures.
    seed: Of the noise maps.
    out: Folder for edits.md and edits.json; created.
  """
  trained, began = options.model(model), time.monotonic()
  images, labels = datasets.real_images(trained, num)
  others = (labels + 1 + np.arange(len(labels)) % (len(trained.classes) - 1)) % len(trained.classes)
  x0, ts = drawing.on_devices(images, trained.scaling), jnp.asarray(trained.levels(steps))
  keys, look = drawing.starts(trained, key_of(seed), np.arange(num))[0], classifier.extractor("fashion_mnist")
  taken = lambda pictures, classes: float(np.mean(np.argmax(look.apply(pictures)[1], axis=-1) == classes))
  ways = {"inversion": roundtrip.inverted(), "refined, at most 5 a step": roundtrip.inverted(5)}
  ways |= {"bijective": roundtrip.in_pairs, "noise maps": roundtrip.noise_maps}
  rows: list[dict[str, object]] = []
  for name, run in ((name, roundtrip.edited(way)) for name, way in ways.items()):
    for weight in weights:
      back, made = map(np.asarray, run(trained, keys, x0, labels, others, jnp.float32(weight), ts))
      kept = np.isfinite(back + made).all(axis=(1, 2, 3))
      pictures = trained.pictures(made[kept])
      rows.append({
        "way": name, "weight": weight, "reconstruction": float(np.mean((back - x0)[kept] ** 2) / 4),
        "taken": taken(pictures, others[kept]), "lost": int(np.sum(~kept)),
        "distance": float(np.mean((pictures / 255 - images[kept] / 255) ** 2) ** 0.5),
      })  # fmt: skip
      print(_ROW.format(**rows[-1]), flush=True)
  about = {"model": model, "steps": steps, "num": num, "seed": seed, "own": taken(images, labels)}
  machine = f"{jax.device_count()} x {jax.devices()[0].device_kind}, {time.monotonic() - began:.0f} s"
  outputs.write_json(out / "edits.json", about | {"machine": machine, "rows": rows})
  head = (
    f"{num} test pictures, S = {steps}; {about['own']:.0%} of the originals are taken for their own class."
  )
  (out / "edits.md").write_text("\n".join([head, _HEAD, *(_ROW.format(**row) for row in rows)]) + "\n")


if __name__ == "__main__":
  options.run(edits, sys.argv[1:], "edits")
