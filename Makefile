# Every target works alone on a fresh machine that has python3 (3.11 or newer) and make.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test test-slow test-firefox docs lint format benchmark soak scenes-weights clean

setup: .venv/.main .venv/.test .venv/.lint

$(BIN)/python:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip

# What bsjax itself needs; what tests need besides, torch above all; what `make lint` needs besides.
.venv/.main: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/.test: .venv/.main
	$(BIN)/python -m pip install --quiet --editable ".[test]"
	touch $@

.venv/.lint: .venv/.main
	$(BIN)/python -m pip install --quiet --editable ".[lint]"
	touch $@

.venv/.docs: .venv/.main
	$(BIN)/python -m pip install --quiet --editable ".[docs]"
	touch $@

demo: .venv/.main
	$(BIN)/bsjax run --config=scenes --workdir=runs/demo

test: .venv/.test
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not slow"

test-slow: .venv/.test
	$(BIN)/python -m pytest -n auto --dist worksteal -m "slow and not firefox"

# Every test of a page again, in Firefox; the default tests look at each of its tabs there.
test-firefox: .venv/.test
	$(BIN)/python -m pytest -n auto --dist loadfile -m firefox

# The site of docs/, in build/site; a link that leads nowhere fails.
docs: .venv/.docs
	$(BIN)/python -m mkdocs build --quiet --strict

lint: .venv/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/.lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

benchmark: .venv/.test
	$(BIN)/python tests/benchmarks/measure.py

# 40 minutes on two cores: 100,000 images by four processes, two of them killed, beside one that nothing disturbs.
soak: .venv/.test
	$(BIN)/python tests/benchmarks/soak.py --workdir=runs/soak --plot=runs/soak.png

# Trains the networks of the scenes world anew, hours on two cores; goes on where it was killed.
WEIGHTS := runs/scenes-weights
scenes-weights: .venv/.main
	$(BIN)/python -m bsjax.planted.train encoder autoencoder decoder generator --workdir=$(WEIGHTS)
	$(BIN)/bsjax train_sae --config=scenes:train_sae --workdir=$(WEIGHTS) \
	    --config.encoder.weights=$(WEIGHTS)/weights/encoder
	mkdir -p $(WEIGHTS)/weights/sae bsjax/assets/scenes
	cp $(WEIGHTS)/sae/sae.safetensors $(WEIGHTS)/sae/quality.json $(WEIGHTS)/weights/sae/
	cp -r $(WEIGHTS)/weights/. bsjax/assets/scenes/

clean:
	rm -rf .venv runs build *.egg-info
