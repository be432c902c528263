# A bare clone needs Python 3.11, make and a C compiler; every target sets up what it needs.
PYTHON ?= python3.11
BIN := .venv/bin
STAMP := .venv/.set-up
# That the native engine's library was brought up to date; where there is no compiler there is none.
NATIVE := .venv/.native
CSRC := $(shell find src/osler/native/csrc -name '*.[ch]')

.PHONY: setup demo test test-slow check

setup: $(NATIVE)

$(NATIVE): $(STAMP) hatch_build.py $(CSRC)
	@$(BIN)/python hatch_build.py
	@touch $@

$(STAMP): requirements.lock requirements-dev.lock pyproject.toml
	@command -v $(PYTHON) > /dev/null || { echo "make: $(PYTHON) not found; name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Setting up .venv from requirements-dev.lock: some minutes, once."
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -qq -r requirements-dev.lock
	@$(BIN)/python -m pip install -qq --no-deps --no-build-isolation -e .
	@touch $@

demo: setup
	@$(BIN)/python tools/demo.py

test: setup
	$(BIN)/python -m pytest

test-slow: setup
	@tools/arm_tools.sh
	@tools/archive_tools.sh
	$(BIN)/python -m pytest -m slow

check: setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/check_sizes.py
