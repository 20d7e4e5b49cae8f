# Two commands: `make demo` and `make test`. Both install into an environment of their own, .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# a process for each core, each with one thread: torch's threads gain little on tests' small tensors
TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

.PHONY: demo test test-all lint format clean help

help:
	@echo "make demo      install, then run the demonstration on a real face generator (about 4 minutes)"
	@echo "make test      install, then lint, type check and run the tests (under 10 minutes)"
	@echo "make test-all  the same with the slow tests"
	@echo "make format    format the code"

demo: $(INSTALLED)
	$(BIN)/qualitygate demo --out demo

test: lint
	$(TESTS) -m "not slow"

test-all: lint
	$(TESTS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group dev --editable .
	@touch $@

clean:
	rm -rf $(VENV) build dist demo .pytest_cache .mypy_cache .ruff_cache
