# Every target works alone on a fresh machine that has python3 (3.11 or newer) and make.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test test-slow lint format benchmark scenes-weights clean

setup: .venv/.installed

.venv/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

demo: setup
	$(BIN)/bsjax run --config=configs/scenes.py --workdir=runs/demo

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

# Trains the networks of the scenes world anew, hours on two cores; goes on where it was killed.
WEIGHTS := runs/scenes-weights
scenes-weights: setup
	$(BIN)/python -m bsjax.planted.train encoder autoencoder decoder generator --workdir=$(WEIGHTS)
	$(BIN)/bsjax train_sae --config=configs/scenes.py:train_sae --workdir=$(WEIGHTS) \
	    --config.encoder.weights=$(WEIGHTS)/weights/encoder
	mkdir -p $(WEIGHTS)/weights/sae bsjax/assets/scenes
	cp $(WEIGHTS)/sae/sae.safetensors $(WEIGHTS)/sae/quality.json $(WEIGHTS)/weights/sae/
	cp -r $(WEIGHTS)/weights/. bsjax/assets/scenes/

clean:
	rm -rf .venv runs build *.egg-info
