# Tasks of the project; `make` alone lists them. A fresh clone needs only Python 3.11 or newer with pip and venv:
# each target installs what it needs into .venv, once.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup run test faults check fix docs clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-7s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: $(VENV)/.dev ## create .venv with everything that tests and linters need

run: $(VENV)/.runtime ## search for a rule from EfficientNet-B0 at twice the compute
	$(BIN)/scalesearch run --base b0 --budget 2x

test: check ## linters, types, tests and doctests
	$(BIN)/python -m pytest -n 2 --dist worksteal

faults: $(VENV)/.dev ## kills, torn files, full disks and bad input by the thousand: the tests of faults in full
	SCALESEARCH_FAULTS=full $(BIN)/python -m pytest tests/faults tests/test_postgres.py --timeout 7200

check: $(VENV)/.dev ## linters and types alone
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

fix: $(VENV)/.dev ## mend what the linters can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.dev ## build the documentation site in build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

clean: ## remove .venv, caches and builds; run folders stay
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "scalesearch needs Python >= 3.11: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.runtime: pyproject.toml | $(VENV)/.made
	$(PIP) -e .
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/.made
	$(PIP) -e '.[dev]'
	@touch $(VENV)/.runtime $@
