# make run            play the shipped clip with the shipped model (SOURCE=0 for the camera)
# make test           lint, types and tests
PYTHON ?= python3
SOURCE ?= edge_kp/assets/astronaut.mp4
ARGS ?=
BIN := .venv/bin

.PHONY: run test lint clean

run: .venv/run-ready
	$(BIN)/python -m edge_kp.run --source $(SOURCE) $(ARGS)

test: lint
	$(BIN)/python -m pytest

lint: .venv/test-ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/run-ready: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	touch $@

.venv/test-ready: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	touch $@ .venv/run-ready

clean:
	rm -rf .venv build *.egg-info
