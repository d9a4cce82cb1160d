"""The heap of glibc: freed memory is kept for later calls, and free pieces left by compilation are set aside.

XLA's CPU client allocates the memory of every call, and the workspaces of its operations, by malloc.
"""

import ctypes
import os
import re
import sys
import tempfile

_LEAST, _MOST = 2**13, 2**20
"""Bytes of pieces that are taken: for smaller ones lists are short, larger ones are few."""


def _libc() -> ctypes.CDLL | None:
  """glibc, if that is the C library and the user has not configured its malloc."""
  configured = any(name.startswith("MALLOC_") for name in os.environ) or "GLIBC_TUNABLES" in os.environ
  if sys.platform != "linux" or configured:
    return None
  libc = ctypes.CDLL(None)
  if not (hasattr(libc, "mallopt") and hasattr(libc, "malloc_info")):
    return None
  libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
  libc.fopen.argtypes, libc.fopen.restype = [ctypes.c_char_p, ctypes.c_char_p], ctypes.c_void_p
  libc.malloc_info.argtypes, libc.fclose.argtypes = [ctypes.c_int, ctypes.c_void_p], [ctypes.c_void_p]
  return libc


def keep_memory() -> None:
  """Keeps memory that is freed for what is allocated next; other C libraries are left alone.

  By default glibc gets large blocks from the kernel and gives them back at once, so that each page is cleared
  and mapped again in each call: with Winograd's transforms a third of the time of the CIFAR-10 network at
  batch 8.
  """
  if (libc := _libc()) is None:
    return
  trim_threshold, mmap_max, arena_max = -1, -4, -8  # of <malloc.h>
  libc.mallopt(mmap_max, 0)
  libc.mallopt(trim_threshold, -1)
  libc.mallopt(arena_max, 1)  # others than the main one cannot hold large blocks


def set_pieces_aside() -> int:
  """Takes free pieces of 8 KB to 1 MB off the heap for good, after a compilation; returns how many.

  Compiling a training step leaves tens of thousands. They are in lists by size, which malloc walks whenever
  an operation wants a workspace: a fifth of a training step of the small networks. Their pages go back to
  the kernel first, so that only address space is lost.
  """
  if (libc := _libc()) is None:
    return 0
  libc.malloc_trim(0)
  taken = 0
  for _ in range(3):  # what is left of a piece is of the spacing of its list: smaller every time
    for size, count in sorted(_pieces(libc), reverse=True):
      for _ in range(count):
        libc.malloc(size - 16)
      taken += count
  return taken


def _pieces(libc: ctypes.CDLL) -> list[tuple[int, int]]:
  """The main heap's lists of pieces that are to be taken: smallest size in each, and how many it has."""
  with tempfile.NamedTemporaryFile("r") as file:
    if not (stream := libc.fopen(file.name.encode(), b"w")):
      return []
    libc.malloc_info(0, stream)
    libc.fclose(stream)
    main, _, _ = file.read().partition("</heap>")  # pieces of other threads' heaps cannot be taken from here
  found = re.findall(r'<size from="(\d+)" to="(\d+)" total="\d+" count="(\d+)"', main)
  # Sizes are given as one more than they are.
  return [(int(a) - 1, int(n)) for a, b, n in found if int(a) > _LEAST and int(b) <= _MOST]
