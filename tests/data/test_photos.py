import json

import pytest

from experiments.bench.photos import photos


def test_the_benchmark_of_photographs(tmp_path):
  photos(number=3, size=(300, 400), image_size=16, rounds=1, out=tmp_path)
  (file,) = tmp_path.glob("photos_16*.json")
  found = json.loads(file.read_text())
  assert set(found["images_per_second"]) == {"decoded in full", "load_folder", "load_folder, cached"}
  assert found["mean_difference_of_255"] < 4  # of a picture that is mostly noise
  with pytest.raises(ValueError, match="--number must be positive, got 0"):
    photos(number=0, out=tmp_path)
