# Limpet: every command a contributor or a first visitor needs. `make help` lists them.
#
#   PYTHON=…   the interpreter that makes the virtual environment (default: the first CPython >= 3.11 found)
#   VENV=…     where that environment lives (default: .venv)
#   ARGS=…     extra arguments of the command that a target runs
#   EXTRAS=…   which of the tools to install beside the runtime (default: dev,docs)

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?=
VENV ?= .venv
ARGS ?=
EXTRAS ?= dev,docs
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
SOURCES := workers gateway shard common local examples benchmarks tests docs

.PHONY: help up check test soak lint types format docs bench coverage fresh clean

help:  ## list the targets
	@awk -F ':.*##' '/^[a-z]+:.*##/ {printf "  make %-9s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

up: $(VENV)/.runtime  ## start the cluster with the default app (ARGS="--app … --port …")
	@exec $(BIN)/limpet up $(ARGS)

check: $(VENV)/.runtime  ## validate an app and the configuration
	@exec $(BIN)/limpet check $(ARGS)

test: $(VENV)/.dev  ## run the tests
	$(BIN)/python -m pytest $(ARGS)

soak: $(VENV)/.dev  ## run the long tests
	$(BIN)/python -m pytest -m soak $(ARGS)

lint: $(VENV)/.dev  ## check style
	$(BIN)/ruff check $(wildcard $(SOURCES))
	$(BIN)/ruff format --check $(wildcard $(SOURCES))

types: $(VENV)/.dev  ## check types
	$(BIN)/mypy $(ARGS)

format: $(VENV)/.dev  ## rewrite the code in the house style
	$(BIN)/ruff check --fix $(wildcard $(SOURCES))
	$(BIN)/ruff format $(wildcard $(SOURCES))

docs: $(VENV)/.dev  ## build the documentation into docs/_build/html
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -b html docs docs/_build/html $(ARGS)
	@echo "docs/_build/html/index.html"

bench: $(VENV)/.dev  ## measure Limpet beside workerd and aiohttp
	$(BIN)/python -m benchmarks $(ARGS)

coverage: $(VENV)/.dev  ## run the tests and report what they reach
	$(BIN)/python -m coverage run -m pytest $(ARGS)
	$(BIN)/python -m coverage report

fresh: clean  ## start over: everything below is made anew by the next command
	rm -rf $(VENV)

clean:  ## remove what the tools made (not the virtual environment, not your data)
	rm -rf build dist docs/_build docs/_generated benchmarks/.build htmlcov .coverage .coverage.* \
	  .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name '.venv*' -prune -o -type d -name __pycache__ -print0 | xargs -0 rm -rf

# ------------------------------------------------------------------ virtual environment
# Two stamps, so that a visitor's first `make up` installs the runtime and nothing else.
# Both are older than pyproject.toml only when it changed: then, and only then, pip runs again.

$(VENV)/.runtime: pyproject.toml | $(BIN)/python
	@echo "Installing Limpet into $(VENV) …"
	@$(PIP) install --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	@echo "Installing Limpet and its tools into $(VENV) …"
	@$(PIP) install --editable '.[$(EXTRAS)]'
	@touch $@ $(VENV)/.runtime

$(BIN)/python:
	@python=''; \
	for candidate in $(if $(PYTHON),'$(PYTHON)',python3 python3.13 python3.12 python3.11); do \
	  if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; \
	  then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "error: Limpet needs CPython 3.11 or newer; $(if $(PYTHON),'$(PYTHON)' is not,none was found on PATH)." >&2; \
	  echo "       Install one, or name it: make $(firstword $(MAKECMDGOALS) up) PYTHON=/path/to/python3" >&2; \
	  exit 1; \
	fi; \
	if ! "$$python" -c 'import venv, ensurepip' >/dev/null 2>&1; then \
	  echo "error: $$python cannot make virtual environments (on Debian: apt-get install python3-venv)." >&2; \
	  exit 1; \
	fi; \
	echo "Making $(VENV) with $$("$$python" --version) …"; \
	"$$python" -m venv '$(VENV)'
