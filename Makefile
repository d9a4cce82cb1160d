# `make demo` trains and samples a small model; `make test` runs the tests, `make quick` those that take seconds,
# `make bench` those of whole benchmarks, all on two cores. All create .venv first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test bench quick newest lint docs clean

demo: .venv/train.stamp
	$(BIN)/python -m experiments.demo

test: .venv/test.stamp
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m "not bench"

bench: .venv/test.stamp
	$(BIN)/python -m pytest -n 2 --dist loadfile -m bench

quick: .venv/test.stamp
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow and not bench"

# The quick tests again with the newest JAX and Flax, which need Python 3.12, in an environment of their own. The
# tests against torch skip there: what they compare does not depend on these versions.
newest: .venv-newest/stamp
	.venv-newest/bin/python -m pytest -n 2 --dist loadfile -m "not slow and not bench"

lint: .venv/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The documentation site, in build/site, with notebooks that are run (minutes, once); a broken link is an error.
docs: .venv/docs.stamp
	NO_MKDOCS_2_WARNING=1 $(BIN)/python .ci/site.py

.venv/docs.stamp: .venv/train.stamp
	$(BIN)/python -m pip install --quiet --editable '.[train,docs]'
	touch $@

.venv/train.stamp: pyproject.toml
	$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit(f"Python 3.11 or newer is needed, $(PYTHON) is {v.major}.{v.minor}; try: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[train]'
	touch $@

.venv/test.stamp: .venv/train.stamp
	$(BIN)/python -m pip install --quiet --editable '.[train,test]'
	touch $@

.venv-newest/stamp: pyproject.toml
	$(PYTHON) -m venv .venv-newest
	.venv-newest/bin/python -m pip install --quiet --upgrade --editable '.[train]' chex hypothesis pytest pytest-xdist
	touch $@

clean:
	rm -rf .venv .venv-newest
