# Every target works alone on a fresh machine that has python3 (3.11 or newer) and make.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test test-slow lint format benchmark clean

setup: .venv/.installed

.venv/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

demo: setup
	$(BIN)/bsjax run --config=configs/folders.py:demo --workdir=runs/demo

test: setup
	$(BIN)/python -m pytest -m "not slow"

test-slow: setup
	$(BIN)/python -m pytest -m slow

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

benchmark: setup
	$(BIN)/python tests/benchmarks/measure.py

clean:
	rm -rf .venv runs build *.egg-info
