# Each target works on a fresh clone with nothing but Python >= 3.11, git and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest
SETUP := $(VENV)/.installed
# Test processes, one thread each: several that use all cores at once slow each other down many times over.
JOBS ?= 2

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
	$(PYTEST) -n $(JOBS) -m "not slow and not soak" --cov --cov-report=term:skip-covered

check: test docs ## the quick lane, the docs and the slow lane
	$(PYTEST) -n $(JOBS) -m "slow and not soak" tests

soak: $(SETUP)   ## what takes longer than the slow lane allows
	$(PYTEST) -m soak --timeout=0 tests
	$(PYTEST) -n $(JOBS) -m "not slow and not soak" --hypothesis-profile=explore tests

format: $(SETUP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(SETUP)
	$(BIN)/mkdocs build --strict --quiet

clean:
	rm -rf site build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.*
