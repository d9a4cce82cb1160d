"""What docs/ says is there: links, names, options, tests; and its Python runs."""

import importlib
import re

import jax
import jax.numpy as jnp
import pytest

import ddim_jax
from ddim_jax.commands import (
  compare,
  convert,
  distil_model,
  editing,
  evaluate_model,
  export,
  inspect_model,
  options,
  play,
  push,
)
from ddim_jax.commands import sample_images as sampling
from ddim_jax.commands import train_model as training
from ddim_jax.commands.main import COMMANDS
from ddim_jax.interop.scheduler_defaults import DEFAULTS
from ddim_jax.models import SOLVERS, config, from_network
from tests import pages
from tests.helpers import ROOT

OF_COMMANDS = {
  "sample": options.names(sampling.Args, editing.Edit) | {"class"},
  "train": training.OPTIONS,
  "compare": options.names(compare.compare) | {"class"},
  "convert": options.names(convert.convert),
  "export": options.names(export.export),
  "inspect": options.names(inspect_model.inspect, config.Data),
  "play": options.names(play.play),
  "distil": options.names(distil_model.distil_model),
  "push": options.names(push.push),
  "evaluate": options.names(evaluate_model.evaluate),
}
OF_OTHERS = {"help", "worker", "command"}
"""Of every program, and of gcloud."""

each_page = pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.stem)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
  """Networks of the shape of the models that come along, which compile in a second: name -> file."""
  folder, found = tmp_path_factory.mktemp("models"), {}
  classes = ddim_jax.load("fashion_mnist_classes").classes
  for name, given in {"fashion_mnist": (), "fashion_mnist_classes": classes}.items():
    unet = ddim_jax.UNet(
      channels=8, multipliers=(1,), blocks=1, attention=(), groups=4, out_channels=1, middle=False,
      num_classes=len(given) or None,
    )  # fmt: skip
    labels = jnp.zeros(1, jnp.int32) if given else None
    params = unet.init(jax.random.key(0), jnp.zeros((1, 28, 28, 1)), jnp.array(1), labels)["params"]
    found[name] = folder / f"{name}.safetensors"
    from_network(unet, (28, 28, 1), params=jax.device_get(params), classes=given).save(found[name])
  return found


WITH_PYTHON = [page for page in pages.PAGES[1:] if pages.blocks(page, "python")]


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_PYTHON, ids=lambda page: page.stem)
def test_the_python_of_a_page_runs(page, small, tmp_path, monkeypatch):
  """Block after block in one namespace, with small networks in place of the models that come along."""
  monkeypatch.chdir(tmp_path)
  if page.stem == "weights":
    pytest.importorskip("safetensors")
  text = pages.script(page)
  for name, path in small.items():
    text = text.replace(f'load("{name}")', f'load("{path}")')
  with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):  # as for a user
    exec(compile(text, page.name, "exec"), {})  # it is our own file


@each_page
def test_links_and_pictures_lead_somewhere(page):
  for target in re.findall(r"\]\((?!http)(.*?)\)", page.read_text()):
    assert (page.parent / target).exists(), target


def test_every_page_is_linked_from_the_readme():
  text = pages.README.read_text()
  for page in pages.PAGES[1:]:
    assert f"(docs/{page.name})" in text, page.name


@each_page
def test_names_of_the_library_exist(page):
  for dotted in set(re.findall(r"\bddim_jax(?:\.[A-Za-z_]\w*)+", page.read_text())):
    found = ddim_jax
    for name in dotted.split(".")[1:]:
      if not hasattr(found, name):
        importlib.import_module(f"{found.__name__}.{name}")
      found = getattr(found, name)


@each_page
def test_files_and_tests_exist(page):
  text = page.read_text()
  for path in re.findall(r"`([\w/]+\.py)`", text):
    assert any((place / path).is_file() for place in (ROOT, ROOT / "ddim_jax", ROOT / "experiments")), path
  tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
  for test in re.findall(r"`(test_\w+)`", text):
    assert f"def {test}(" in tests, test


@each_page
def test_commands_and_options_exist(page):
  of_experiments = set()
  for program, *argv in pages.commands(page):
    if program == "ddim":
      if argv[0].startswith("-"):
        continue
      assert argv[0] in COMMANDS
      known = OF_COMMANDS[argv[0]]
      if "--help" not in argv and argv[0] == "sample":
        sampling.parse(argv[1:])
      elif "--help" not in argv and argv[0] == "train" and len(argv) > 1:  # not the mere name
        training.parse(argv[1:])
    else:
      module = argv[1].replace(".", "/")
      found = [path for path in (ROOT / f"{module}.py", ROOT / module / "__main__.py") if path.is_file()]
      assert found, module
      sources = found[0].parent.glob("*.py") if found[0].name == "__main__.py" else found
      known = {name for path in sources for name in re.findall(r"\b(\w+): ", path.read_text())}
      known |= OF_COMMANDS["train"] if module.endswith(("train_cifar", "train_for_minutes")) else set()
      of_experiments |= known
    for option in named(" ".join(argv)):
      assert option in known | OF_OTHERS, f"{program} {argv}: {option}"
  everything = set().union(*OF_COMMANDS.values(), of_experiments, OF_OTHERS)
  unknown = named(page.read_text()) - everything - set(re.findall(r"\b(\w+): ", _bench()))
  assert not unknown


def named(text):
  """Options named in a text, as names of arguments; flags of XLA are not ours."""
  found = {option.replace("-", "_") for option in re.findall(r"(?<![\w-])--(?!xla_)([a-z][\w-]*)", text)}
  return {option.removeprefix("no_") for option in found}


def _bench():
  """The source of the benchmarks and of the paper."""
  places = (ROOT / "experiments" / name for name in ("bench", "paper"))
  return "".join(path.read_text() for place in places for path in place.glob("*.py"))


def test_every_scheduler_and_solver_has_its_row():
  text = (ROOT / "docs" / "diffusers.md").read_text()
  classes = set(re.findall(r"\b\w+Scheduler\b", text))
  assert {name for name in classes if not name.startswith("Flax")} == set(DEFAULTS)
  rows = re.findall(r"^\| ([\w, -]+) \| `ddim_jax", (ROOT / "docs" / "solvers.md").read_text(), re.MULTILINE)
  assert {name for row in rows for name in row.split(", ") if name.strip()} == set(SOLVERS)
