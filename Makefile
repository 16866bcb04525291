# Each target works on a fresh clone with nothing but Python >= 3.11, git and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
SETUP := $(VENV)/.installed

.PHONY: demo test check soak lint format docs clean

$(SETUP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "ctrs needs Python 3.11 or newer: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev,docs]"
	touch $(SETUP)

demo: $(SETUP)   ## a synthetic town through all five steps; under 4 minutes on 2 cores
	$(BIN)/ctrs demo --out ctrs-demo --overwrite

lint: $(SETUP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

test: lint       ## the quick lane
	rm -f .coverage .coverage.*
	$(PYTEST) -m "not slow and not soak" --cov --cov-report=
	$(BIN)/coverage combine --quiet || true
	$(BIN)/coverage report

check: test docs ## the quick lane, the docs and the slow lane
	$(PYTEST) -m "slow and not soak" tests

soak: $(SETUP)   ## what takes longer than the slow lane allows
	$(PYTEST) -m soak --timeout=0 tests

format: $(SETUP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(SETUP)
	$(BIN)/mkdocs build --strict --quiet

clean:
	rm -rf site build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.*
