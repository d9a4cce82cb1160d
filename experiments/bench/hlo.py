"""What an optimised program consists of, read from its text: kernels, collectives, bytes moved.

The text is that of ``jax.stages.Compiled.as_text()``, an HLO module of any platform. Computations that run
are the entry, bodies and conditions of loops, branches and calls; what stands inside of a fusion is one
kernel. Each computation counts once, whatever the number of turns of a loop, so that a sampler's scan
counts as one step. XLA's own ``cost_analysis`` is not used: compiling for a GPU without one has none.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_SHAPE = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\](\{[^}]*\})?")
_CALLED = re.compile(r"\b(?:body|condition|to_apply|true_computation|false_computation)=%?([\w.\-]+)")
_FUSED = re.compile(r"\bcalls=%?([\w.\-]+)")
_BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}")
_TARGET = re.compile(r'custom_call_target="([^"]*)"')
_COLLECTIVES = (
  "all-reduce", "all-gather", "reduce-scatter", "all-to-all", "ragged-all-to-all", "collective-permute",
  "collective-broadcast",
)  # fmt: skip
_FREE = {
  "parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "call",
  "after-all", "opt-barrier", "partition-id", "replica-id", "async-start", "async-update", "async-done",
}  # fmt: skip
_WINDOWS = {"slice", "dynamic-slice", "gather"}
"""Operations that read as much of their first operand as they return."""


class Summary(NamedTuple):
  """Counts of one program on one device.

  Attributes:
    fusions: Kernels that XLA made.
    calls: Calls of libraries (cuDNN, cuBLAS) and other custom calls, by target.
    triton: Those fusions that Triton compiles; only on a GPU.
    others: Further operations that run on their own, by kind: copies, slices, reductions, ...
    collectives: Kind -> (how often, bytes of what is sent, a device).
    bytes: Read from and written to the main memory: all arguments and results of each kernel, of a slice
      only what is taken. Caches are left out, and what a TPU keeps in its vector memory does not count.
  """

  fusions: int
  calls: dict[str, int]
  triton: int
  others: dict[str, int]
  collectives: dict[str, tuple[int, int]]
  bytes: int

  @property
  def kernels(self) -> int:
    """Fusions and calls."""
    return self.fusions + sum(self.calls.values())


class _Instruction(NamedTuple):
  root: bool
  name: str
  shape: str
  opcode: str
  arguments: str
  attributes: str

  @property
  def operands(self) -> list[str]:
    return re.findall(r"%([\w.\-]+)", self.arguments)

  @property
  def fused(self) -> list[str]:
    return _FUSED.findall(self.attributes)


_Computation = dict[str, _Instruction]


def summarise(text: str) -> Summary:
  """Counts what an optimised program consists of.

  Args:
    text: ``Compiled.as_text()``.

  Raises:
    ValueError: If it is no HLO module.
  """
  entry, computations = parse(text)
  fusions, triton, moved = 0, 0, 0
  calls: Counter[str] = Counter()
  others: Counter[str] = Counter()
  times: Counter[str] = Counter()
  sent: Counter[str] = Counter()
  for computation in _running(entry, computations):
    for one in computation.values():
      kind = one.opcode.removesuffix("-start")
      if one.opcode in _FREE or one.opcode.endswith("-done"):
        continue
      moved += _traffic(one, computation, computations)
      if kind in _COLLECTIVES:
        times[kind] += 1
        sent[kind] += sum(_bytes(computation[name].shape, everywhere=True) for name in one.operands)
      elif kind == "fusion":
        fusions += 1
        triton += '"__triton' in one.attributes
      elif kind == "custom-call":
        calls[_TARGET.findall(one.attributes)[0]] += 1
      else:
        others[kind] += 1
  collectives = {kind: (number, sent[kind]) for kind, number in times.items()}
  return Summary(fusions, dict(calls), triton, dict(others.most_common()), collectives, moved)


def _closing(text: str) -> int:
  """Index of the parenthesis that closes the one at the beginning."""
  depth = 0
  for match in re.finditer(r"[()]", text):
    depth += 1 if match.group() == "(" else -1
    if not depth:
      return match.start()
  raise ValueError(f"text is not an HLO module: no closing parenthesis in {text[:80]!r}")


def parse(text: str) -> tuple[str, dict[str, _Computation]]:
  """The entry's name, and all computations by name.

  Raises:
    ValueError: If the text is no HLO module.
  """
  entry = ""
  computations: dict[str, _Computation] = {}
  current: _Computation = {}
  for line in text.splitlines():
    if header := _HEADER.match(line):
      current = computations.setdefault(header[2], {})
      entry = header[2] if header[1] else entry
    elif found := _INSTRUCTION.match(line):
      root, name, rest = found.groups()
      end = _closing(rest) + 1 if rest.startswith("(") else rest.index(" ")
      shape, rest = rest[:end], rest[end:].lstrip()
      start = rest.index("(")
      end = start + _closing(rest[start:])
      current[name] = _Instruction(bool(root), name, shape, rest[:start], rest[start + 1 : end], rest[end:])
  if not entry:
    raise ValueError("text is not an HLO module: it has no ENTRY")
  return entry, computations


def _running(entry: str, computations: dict[str, _Computation]) -> Iterator[_Computation]:
  """The entry and everything that it calls, each once."""
  seen, left = set(), [entry]
  while left:
    name = left.pop()
    if name in seen:
      continue
    seen.add(name)
    yield computations[name]
    for one in computations[name].values():
      if one.opcode in ("while", "conditional", "call"):
        left += _CALLED.findall(one.attributes)
        left += [name.strip(" %") for names in _BRANCHES.findall(one.attributes) for name in names.split(",")]
      elif one.opcode == "async-start":
        left += one.fused


def _arrays(shape: str, everywhere: bool = False) -> list[int]:
  """Bytes of each array of a shape, perhaps a tuple; 0 for those outside of the main memory."""
  sizes = []
  for kind, dimensions, layout in _SHAPE.findall(shape):
    bits = 8 if kind == "pred" else int((re.findall(r"\d+", kind) or ["0"])[0])
    elements = math.prod(int(n) for n in dimensions.split(",") if n)
    outside = not everywhere and re.search(r"S\([1-9]", layout)
    sizes.append(0 if outside else elements * bits // 8)
  return sizes


def _bytes(shape: str, everywhere: bool = False) -> int:
  return sum(_arrays(shape, everywhere))


def _traffic(one: _Instruction, computation: _Computation, computations: dict[str, _Computation]) -> int:
  """Bytes that an operation reads and writes."""
  shapes = [computation[name].shape for name in one.operands]
  if one.opcode in ("copy-start", "slice-start"):  # returns the copy, the original and more
    size = _arrays(one.shape, everywhere=True)[0]
    return _arrays(one.shape)[0] + (size if _bytes(shapes[0]) else 0)
  if one.opcode in _WINDOWS:
    return _bytes(one.shape) + min(_bytes(one.shape, everywhere=True), _bytes(shapes[0]))
  if one.opcode == "dynamic-update-slice":
    return 2 * _bytes(shapes[1])
  if one.opcode != "fusion":
    return _bytes(one.shape) + sum(map(_bytes, shapes))
  inner = computations[one.fused[0]]
  names = {int(each.arguments): each.name for each in inner.values() if each.opcode == "parameter"}
  read = sum(_read(inner, names[i], _bytes(shape)) for i, shape in enumerate(shapes))
  root = next(each for each in inner.values() if each.root)
  return read + min(_bytes(one.shape), _written(inner, root))


def _read(computation: _Computation, name: str, whole: int) -> int:
  """Bytes that a kernel reads of one of its arrays: parts of it, if only windows of it are used."""
  total = 0
  for user in computation.values():
    operands = user.operands
    if name not in operands:
      continue
    if user.opcode == "bitcast":
      total += _read(computation, user.name, whole)
    elif user.opcode in _WINDOWS and operands[0] == name:
      total += _bytes(user.shape)
    elif user.opcode != "dynamic-update-slice" or operands[0] != name:  # which is in place
      return whole
  return min(total, whole)


def _written(computation: _Computation, one: _Instruction) -> int:
  """Bytes that a kernel writes for one of its results."""
  if one.opcode == "tuple":
    return sum(_written(computation, computation[name]) for name in one.operands)
  if one.opcode == "bitcast":
    return min(_bytes(one.shape), _written(computation, computation[one.operands[0]]))
  if one.opcode == "dynamic-update-slice":
    return _bytes(computation[one.operands[1]].shape)
  return _bytes(one.shape)
