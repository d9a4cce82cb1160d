"""`make demo` with time for all of its steps: are its samples digits?"""

import numpy as np
import pytest
from PIL import Image


@pytest.mark.slow
def test_the_demos_samples_are_digits(run, tmp_path):
  from sklearn.datasets import load_digits
  from sklearn.model_selection import train_test_split
  from sklearn.neural_network import MLPClassifier

  done = run("experiments.demo", "--workdir", tmp_path, "--max-minutes", 20, devices=None, timeout=1500)
  for steps in (5, 10, 20, 50):
    for eta in (0, 1):
      assert f"eta = {eta}, S = {steps}:" in done.stdout
  with Image.open(tmp_path / "demo.png") as picture:
    assert picture.size[0] > 700

  digits = load_digits()
  pixels = digits.images.reshape(-1, 64) / 16
  train, test, train_labels, test_labels = train_test_split(
    pixels, digits.target, test_size=0.25, random_state=0, stratify=digits.target
  )
  classifier = MLPClassifier((256,), max_iter=600, random_state=0).fit(train, train_labels)
  assert classifier.score(test, test_labels) >= 0.97

  for eta in (0, 1):
    drawn = tmp_path / f"{eta}.npz"
    run("ddim_jax", "sample", tmp_path, "--num", 300, "--eta", eta, "--out", drawn, devices=None)
    with np.load(drawn) as file:
      images = file["arr_0"].reshape(300, 64) / 255
    probabilities = classifier.predict_proba(images)
    sure = np.mean(probabilities.max(axis=1) >= 0.9)
    right = np.mean(probabilities.argmax(axis=1) == np.arange(300) % 10)
    assert min(sure, right) >= 0.9, f"eta = {eta}: sure of {sure:.0%}, {right:.0%} as asked for"
    assert set(probabilities.argmax(axis=1)) == set(range(10))
