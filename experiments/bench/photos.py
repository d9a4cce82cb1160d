"""Photographs decoded: in full, as load_folder does it, and from its cache. No photographs are needed."""

import statistics
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ddim_jax import data
from ddim_jax.cpu.devices import cores
from ddim_jax.data import forms
from experiments.bench import measure


def photos(
  number: int = 16,
  size: Sequence[int] = (3000, 4000),
  image_size: int = 64,
  rounds: int = 3,
  out: Path = measure.OUT,
) -> None:
  """Images a second of a folder of JPEG photographs, on all cores.

  Args:
    number: Photographs in the folder, drawn and written first.
    size: Their height and width in pixels.
    image_size: Side of what they become.
    rounds: How often each side is measured, in turn.
    out: Folder for the JSON and the chart.
  """
  measure.positive(number=number, image_size=image_size, rounds=rounds)
  with tempfile.TemporaryDirectory() as made:
    place, cache = Path(made, "photos"), Path(made, "cache")
    place.mkdir()
    files = [place / f"{i:03}.jpg" for i in range(number)]
    for i, file in enumerate(files):
      _photograph(i, *size).save(file, quality=90)
    bytes_each = statistics.mean(file.stat().st_size for file in files)

    form = forms.make_form(image_size)

    def in_full():
      with ThreadPoolExecutor(cores()) as pool:
        return np.stack(list(pool.map(lambda file: _in_full(file, form), files)))

    load = lambda **options: data.load_folder(place, image_size, **options).read(np.arange(number))[0]
    seconds = measure.alternate(
      {"decoded in full": in_full, "load_folder": load, "load_folder, cached": lambda: load(cache=cache)},
      rounds,
    )
    difference = float(np.mean(np.abs(in_full().astype(float) - load())))
  rate = {name: number / statistics.median(times) for name, times in seconds.items()}
  results = {
    "number": number, "size": list(size), "image_size": image_size, "rounds": rounds, "cores": cores(),
    "bytes_each": round(bytes_each), "images_per_second": {name: round(x, 1) for name, x in rate.items()},
    "load_folder_over_in_full": round(rate["load_folder"] / rate["decoded in full"], 1),
    "cached_over_in_full": round(rate["load_folder, cached"] / rate["decoded in full"], 1),
    "mean_difference_of_255": round(difference, 2),
  }  # fmt: skip
  measure.report(f"photos_{image_size}", results, out, rate, "images a second")


def _photograph(seed: int, height: int, width: int) -> Image.Image:
  """Clouds of many sizes with the noise of a sensor, which costs a decoder what a photograph does."""
  random = np.random.default_rng(seed)
  picture = np.zeros((height, width, 3), np.float32)
  for octave in range(1, 8):
    coarse = random.normal(size=(3 * 2**octave, 4 * 2**octave, 3)) * (110 / octave**1.5)
    for channel in range(3):
      plane = Image.fromarray(coarse[..., channel].astype(np.float32))
      picture[..., channel] += np.asarray(plane.resize((width, height)))
  noise = random.normal(size=(height, width, 1)).astype(np.float32) * 3
  return Image.fromarray(np.clip(128 + picture * 0.4 + noise, 0, 255).astype(np.uint8))


def _in_full(file: Path, form: forms.Form) -> np.ndarray:
  """A photograph decoded at its own size, then cut and resized, as load_folder did it once."""
  with Image.open(file) as image:
    return forms.resize(np.asarray(ImageOps.exif_transpose(image).convert("RGB")), form)
