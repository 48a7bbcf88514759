# make run: a standalone server on 127.0.0.1:2181, data in ./zkd-data (ZKD_PORT, ZKD_DATA).
# make test: the whole test suite. Both set up all they need.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ZKD_PORT ?= 2181
ZKD_DATA ?= zkd-data
PYTEST_ARGS ?=

COMPILED := $(shell $(PYTHON) hatch_build.py --list)

.PHONY: run test compile check bench chaos large crowds ensembles differential kazoo system setup clean

run: $(VENV)/.run $(VENV)/.compiled
	exec $(BIN)/zkd serve --set clientPort=$(ZKD_PORT) --set clientPortAddress=127.0.0.1 \
	    --set dataDir=$(ZKD_DATA)

test: $(VENV)/.dev $(VENV)/.compiled system
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/mypy zkd $(wildcard plugins/*)

# The project's own load generator, zkd beside Apache ZooKeeper: docs/performance.md.
bench: $(VENV)/.dev $(VENV)/.compiled system
	$(BIN)/python -m tests.bench.run $(BENCH_ARGS)

# Every kind of crash, fifty times each: docs/chaos.md.
chaos: $(VENV)/.dev $(VENV)/.compiled
	$(BIN)/python -m tests.chaos.run $(CHAOS_ARGS)

# A directory with a million children: filled, listed, emptied. A start with ten million znodes.
large: $(VENV)/.dev $(VENV)/.compiled
	$(BIN)/python -m pytest -m slow -s tests/integration/test_large_directory.py \
	    tests/integration/test_large_tree.py

# 10,000 clients that come back at once, and a million watches.
crowds: $(VENV)/.dev $(VENV)/.compiled
	$(BIN)/python -m pytest -m slow -s tests/integration/test_crowds.py

# Ensembles of zkd and Apache ZooKeeper in every role, every way back, over broken networks.
ensembles: $(VENV)/.dev $(VENV)/.compiled system
	$(BIN)/python -m pytest -m 'slow or not slow' -s tests/ensembles

# 100,000 random requests to zkd and to Apache ZooKeeper, every reply compared: docs/conformance.md.
differential: $(VENV)/.dev $(VENV)/.compiled system
	$(BIN)/python -m tests.conformance.differential $(DIFFERENTIAL_ARGS)

# kazoo's own integration tests against zkd: docs/conformance.md.
kazoo: $(VENV)/.dev $(VENV)/.compiled
	$(BIN)/python -m tests.conformance.kazoo_suite $(KAZOO_ARGS)

setup: $(VENV)/.dev $(VENV)/.compiled system

# The modules on the way of a request as machine code, after a change: docs/compiled.md.
compile: $(VENV)/.compiled

$(VENV)/.compiled: hatch_build.py $(COMPILED) | $(VENV)/.run
	@echo "compiling what lies on the way of a request (about a minute, once)"
	$(BIN)/python hatch_build.py
	@touch $@

$(VENV)/bin/python:
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || ./.ci/system-packages python3-venv
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[compile]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[compile,dev]'
	@touch $@ $(VENV)/.run

# What tests need of Debian: Apache ZooKeeper, the C client's library, Node.js.
system:
	@./.ci/system-packages gcc zookeeper libzookeeper-mt-dev npm procps

clean:
	find zkd zkd__mypyc*.so -name '*.so' -delete
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
