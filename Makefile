# A fresh machine needs make and Python 3.11 or newer; everything else is made in $(VENV).
#
#   make PYTHON=python3.12 VENV=.venv312 test      another interpreter, another environment
#   make JOBS=8 test                               more processes

PYTHON = python3
VENV ?= .venv
JOBS = 2
DIST = dist
BIN = $(VENV)/bin
READY = $(VENV)/.ready

.PHONY: help env quickstart test lint format types imports docs wheel clean

help:
	@echo 'make quickstart   compress a small network, about a minute'
	@echo 'make test         the tests                 make docs      write docs/reference anew'
	@echo 'make lint         style and formatting      make format    mend what can be mended'
	@echo 'make types        mypy --strict             make imports   which layer may import which'
	@echo 'make wheel        dist/                     make clean     remove what these made'

env: $(READY)

# The first pip installs the pinned versions, the second what a CUDA build of torch pins beyond them (for a CPU build,
# nothing). Build isolation is off because setuptools is pinned too.
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("prunelang needs Python 3.11 or newer, and $(PYTHON) is %d.%d: choose another with make PYTHON=..." % v[:2])'
	@echo 'making the environment in $(VENV), one to three minutes'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps -r requirements.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -c requirements.lock torch
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(READY)

quickstart: $(READY)
	$(BIN)/prune run specs/quickstart.prune --out runs/quickstart

# One torch thread a process: two processes with two threads each on two cores are many times slower.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(JOBS) -q

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(READY)
	$(BIN)/mypy

imports: $(READY)
	$(BIN)/lint-imports --no-cache

wheel: $(READY)
	$(BIN)/python -m build --no-isolation --outdir $(DIST) .

docs: $(READY)
	$(BIN)/python -m prunelang.docs

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
