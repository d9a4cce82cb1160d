"""What programs ask of glibc's malloc, in processes of their own."""

import os
import sys

import pytest

from tests.helpers import printed

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="configures glibc")


@pytest.mark.slow
@pytest.mark.parametrize(("option", "kept"), [({}, True), ({"MALLOC_ARENA_MAX": "4"}, False)])
def test_programs_reuse_memory_unless_malloc_is_configured(option, kept):
  """Pages of the second and third of three equal arrays are mapped only if the first's were given back."""
  code = """
from ddim_jax.cpu import heap
import numpy as np, resource
heap.keep_memory()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(2**25)
before = faults()
np.ones(2**25)
np.ones(2**25)
print(faults() - before)
"""
  found = printed(code, os.environ | option)
  assert (int(found) < 100) == kept


@pytest.mark.slow
@pytest.mark.parametrize(("option", "taken"), [({}, True), ({"MALLOC_ARENA_MAX": "4"}, False)])
def test_pieces_of_the_heap_are_set_aside_and_their_pages_given_back(option, taken):
  """Of 8,000 blocks every second one is freed: 4,000 pieces of 16 to 80 KB between blocks in use."""
  code = """
import ctypes
from ddim_jax.cpu import heap
heap.keep_memory()
libc = ctypes.CDLL(None)
libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
blocks = [libc.malloc(16384 + 16 * (i * 997 % 4096)) for i in range(8000)]
for block in blocks:
  ctypes.memset(block, 1, 16384)
for block in blocks[::2]:
  libc.free(block)
resident = lambda: int(open("/proc/self/statm").read().split()[1]) * 4096
before = resident()
print(heap.set_pieces_aside(), heap.set_pieces_aside(), before - resident())
"""
  found = printed(code, os.environ | option)
  first, second, freed = map(int, found.split())
  assert (first > 3500, freed > 3500 * 4096) == (taken, taken)
  assert second < 40
