"""Programs compiled for accelerators, and what is read from their text."""

import importlib.util
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from experiments.bench import cross, hlo, targets
from experiments.bench.compile import compile
from experiments.bench.cross_page import write_page
from tests.helpers import ROOT

needs_libtpu = pytest.mark.skipif(
  importlib.util.find_spec("libtpu") is None, reason="needs the TPU compiler: pip install '.[tpu]'"
)

TEXT = """HloModule jit_f, entry_computation_layout={(f32[64,64]{1,0}, f32[64]{0})->f32[64]{0}}

%fused_computation (param_0: f32[64,64], param_1: f32[64]) -> f32[64] {
  %param_0 = f32[64,64]{1,0} parameter(0)
  %slice.1 = f32[1,64]{1,0} slice(%param_0), slice={[3:4], [0:64]}
  %bitcast.1 = f32[64]{0} bitcast(%slice.1)
  %param_1 = f32[64]{0} parameter(1)
  ROOT %add.1 = f32[64]{0} add(%bitcast.1, %param_1)
}

%product (param_0: f32[64,64], param_1: f32[64,64]) -> f32[64,64] {
  %param_0.1 = f32[64,64]{1,0:T(8,128)} parameter(0)
  %param_1.1 = f32[64,64]{1,0:T(8,128)} parameter(1)
  ROOT %dot.1 = f32[64,64]{1,0} dot(%param_0.1, %param_1.1), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

%body (state: (s32[], f32[64])) -> (s32[], f32[64]) {
  %state = (s32[], /*index=1*/f32[64]{0:T(256)}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %v = f32[64]{0} get-tuple-element(%state), index=1
  %call.1 = (f32[64]{0}, u8[128]{0}) custom-call(%v), custom_call_target="__cudnn$convForward"
  %w = f32[64]{0} get-tuple-element(%call.1), index=0
  ROOT %next = (s32[], f32[64]{0}) tuple(%i, %w)
}

%condition (state.1: (s32[], f32[64])) -> pred[] {
  %state.1 = (s32[], f32[64]{0}) parameter(0)
  ROOT %go = pred[] constant(false)
}

ENTRY %main (a: f32[64,64], b: f32[64]) -> f32[64] {
  %a = f32[64,64]{1,0} parameter(0)
  %b = f32[64]{0} parameter(1)
  %zero = s32[] constant(0)
  %triton = f32[64,64]{1,0:T(8,128)S(1)} fusion(%a, %a), kind=kCustom, calls=%product, backend_config={"fusion_backend_config":{"kind":"__triton_gemm"}}
  %row = f32[64]{0} fusion(%a, %b), kind=kLoop, calls=%fused_computation
  %start = f32[64]{0} all-reduce-start(%row), replica_groups={}
  %done = f32[64]{0} all-reduce-done(%start)
  %begin = (s32[], f32[64]{0}) tuple(%zero, %done)
  %loop = (s32[], f32[64]{0}) while(%begin), condition=%condition, body=%body
  ROOT %result = f32[64]{0} get-tuple-element(%loop), index=1
}
"""  # noqa: E501


def test_counts_kernels_calls_collectives_and_bytes():
  summary = hlo.summarise(TEXT)
  assert (summary.fusions, summary.triton, summary.others) == (2, 1, {})
  assert summary.calls == {"__cudnn$convForward": 1}
  assert summary.kernels == 3
  assert summary.collectives == {"all-reduce": (1, 256)}
  square, row = 64 * 64 * 4, 64 * 4
  # The product reads its argument twice, and leaves its result in vector memory; a row of the matrix is read
  # where a row is used; the sum over devices and the call in the loop read and write theirs.
  assert summary.bytes == 2 * square + 3 * row + 2 * row + (2 * row + 128)


def test_reads_a_program_compiled_for_four_devices():
  mesh = jax.make_mesh((4,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))

  def gradient(w, x):
    value, slope = jax.value_and_grad(lambda w: jnp.sum((x @ w) ** 2))(w)
    return jax.lax.psum((value, slope), "batch")

  mapped = jax.shard_map(
    gradient, mesh=mesh, in_specs=(jax.P(), jax.P("batch")), out_specs=jax.P(), check_vma=False
  )
  program = jax.jit(mapped).lower(jnp.ones((16, 3), jnp.float32), jnp.ones((8, 16), jnp.float32)).compile()
  collectives = hlo.summarise(program.as_text()).collectives
  assert set(collectives) == {"all-reduce"}
  assert collectives["all-reduce"][1] == 4 * (16 * 3 + 1)


def test_a_kernel_moves_its_arguments_and_its_result():
  """A second product of a loop counts once, whatever the number of turns."""
  text = jax.jit(lambda x, y: jnp.sin(x) * y).lower(*jnp.ones((2, 1000), jnp.float32)).compile().as_text()
  assert hlo.summarise(text).bytes == 3 * 4000
  turns = lambda n: lambda x: jax.lax.scan(lambda x, _: (jnp.sin(x) * x, None), x, length=n)[0]
  kernels = [hlo.summarise(jax.jit(turns(n)).lower(jnp.ones(8)).compile().as_text()).kernels for n in (5, 50)]
  assert kernels[0] == kernels[1] > 0


def test_refuses_other_text():
  with pytest.raises(ValueError, match="no ENTRY"):
    hlo.summarise("module @jit_f {}")


@pytest.mark.parametrize(("start", "limit", "expected"), [(1, 1000, 128), (512, 1000, 128), (8, 106, 0)])
def test_finds_the_largest_batch_by_compiling(start, limit, expected):
  """Of a program of 100 + 7 bytes an image, and a compiler that refuses more than 300 images."""
  needed = lambda batch: None if batch > 300 else 100 + 7 * batch
  assert cross.search(needed, start, limit) == expected


def test_extrapolates_the_largest_batch():
  memory = {"fixed": 100, "temporary": 7 * 32}
  assert cross.extrapolate(memory, 32, 1000) == 128
  assert cross.extrapolate(memory, 32, 106) == 0


@pytest.mark.parametrize("name", ["h200", "v4", "v5e:2", "v5e:0x2", "h100:x", "h100:0"])
def test_refuses_unknown_targets(name):
  with pytest.raises(ValueError, match="--target must be"):
    targets.parse(name)


def test_a_line_says_what_to_install(monkeypatch):
  """The compilers may or may not be here, so that what finds them is replaced."""
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  for target, package in (("v5e:2x2", "jax[tpu]"), ("h100", "jax[cuda13]")):
    with pytest.raises(ValueError, match="pip install") as caught:
      compile("tiny", target=target)
    assert package in str(caught.value)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"network": "fashion_mnist", "target": "h100"}, "--network must be one of"),
    ({"network": "lsun256"}, "--network must be one of"),
    ({"network": "tiny", "target": "h100", "batch_size": 0}, "--batch-size must be positive"),
  ],
)
def test_refuses(options, message):
  with pytest.raises(ValueError, match=message):
    compile(**options)


def test_the_page_has_a_row_for_each_program(tmp_path):
  made = {
    "fusions": 5, "calls": {"cudnn": 2}, "triton": 1, "others": {"copy": 3}, "kernels": 7, "bytes": 5 * 10**9,
    "collectives": {"all-reduce": (1, 2_000_000)}, "memory": {"fixed": 1, "temporary": 1, "total": 3 * 10**9},
    "cpu_seconds_to_compile": 8.4, "devices": 4, "devices_a_chip": 1, "gflop": 1000.0, "fits": True,
    "roofline_ms": {"arithmetic": 1.0, "memory": 2.0, "step": 2.0}, "largest_batch": (256, "extrapolated"),
  }  # fmt: skip
  refused = {"fits": False, "devices": 4, "gflop": 1000.0, "cpu_seconds_to_compile": 1.0}
  results = {
    "target": "v5e:2x2", "network": "tiny", "channels": 8, "dtype": "bfloat16", "batch_a_device": 8,
    "compilers": "jax 1", "programs": {"train": made, "sample": refused},
  }  # fmt: skip
  (tmp_path / "target_a.json").write_text(json.dumps(results))
  write_page(tmp_path)
  rows = [line for line in (tmp_path / "accelerators.md").read_text().splitlines() if "v5e" in line]
  assert len(rows) == 2
  for expected in ("7 (1)", "1 all-reduce, 2.0 MB", "3.00", "256 (extrapolated)", "2.00 (memory)"):
    assert f"| {expected} |" in rows[0]
  assert "| does not fit |" in rows[1]


@pytest.mark.slow
@needs_libtpu
def test_a_training_step_of_a_tpu_slice_has_one_all_reduce(tmp_path):
  """Gradients and loss are summed together; sampling exchanges nothing."""
  compile("tiny", target="v5e:2x2", out=tmp_path)
  (path,) = tmp_path.glob("target_*.json")
  programs = json.loads(path.read_text())["programs"]
  assert programs["train"]["collectives"]["all-reduce"][0] == 1
  assert set(programs["train"]["collectives"]) == {"all-reduce"}
  assert programs["sample"]["collectives"] == {}
  assert programs["train"]["devices"] == 4
  assert programs["train"]["fits"]
  assert "v5e:2x2 (4 devices)" in (tmp_path / "accelerators.md").read_text()


_DROPOUT_IN_A_CONVOLUTION = """
import jax
import jax.numpy as jnp
from ddim_jax.convolution import direct
from ddim_jax.unet.layers import dropout
from experiments.bench import targets

device = targets.devices(targets.parse("v5e:2x2"))[0]

def loss(kernel, x, keys):
  return jnp.sum(direct(dropout(jax.nn.swish(x), keys, 0.1), kernel) ** 2)

there = jax.sharding.SingleDeviceSharding(device)
shaped = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.bfloat16)
keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 8))
program = jax.jit(jax.grad(loss, argnums=(0, 1)), in_shardings=there, out_shardings=there)
print(program.lower(shaped(3, 3, 64, 64), shaped(8, 16, 16, 64), keys).compile().as_text())
"""


@pytest.mark.slow
@needs_libtpu
def test_no_convolution_makes_random_numbers_on_a_tpu(tmp_path):
  """A convolution into whose kernel the compiler has put them takes it five times as long."""
  there = targets.parse("v5e:2x2").environment | {"TMPDIR": str(tmp_path)}  # for the compiler's lock
  command = [sys.executable, "-c", _DROPOUT_IN_A_CONVOLUTION]
  done = subprocess.run(command, env=os.environ | there, cwd=ROOT, capture_output=True, text=True)
  assert done.returncode == 0, done.stderr
  _, computations = hlo.parse(done.stdout)

  def operations(name: str) -> set[str]:
    """Of a computation, and of what is fused into it."""
    inside = computations[name].values()
    return {one.opcode for one in inside}.union(*(operations(f) for one in inside for f in one.fused))

  convolutions = [
    operations(name)
    for name, computation in computations.items()
    if any(one.opcode == "convolution" for one in computation.values())
  ]
  assert len(convolutions) >= 2
  assert any("shift-right-logical" in operations(name) for name in computations)
  assert not any("shift-right-logical" in found for found in convolutions)
