# make run            play the shipped clip with the shipped model (SOURCE=0 for the camera)
# make test           lint, types and tests
# make docs           pages of the Python API in site/
# make wheel          source archive and wheel in dist/
PYTHON ?= python3
SOURCE ?= edge_kp/assets/astronaut.mp4
ARGS ?=
BIN := .venv/bin

.PHONY: run test lint style types unit docs wheel clean

run: .venv/run-ready
	$(BIN)/python -m edge_kp.run --source $(SOURCE) $(ARGS)

# Types are checked while the tests run, which leave some of each core idle.
test: style
	$(MAKE) --no-print-directory -j2 types unit

lint: style types

style: .venv/test-ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/test-ready
	$(BIN)/mypy

unit: .venv/test-ready
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n auto --dist loadfile

docs: .venv/test-ready
	$(BIN)/python docs/api.py site

wheel: .venv/test-ready
	$(BIN)/python -m build --no-isolation

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/run-ready: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install -q -c constraints.txt -e .
	touch $@

.venv/test-ready: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install -q --no-deps mediapipe==0.10.14 \
		|| echo "no mediapipe for this Python: the tests of its weights are skipped"
	touch $@ .venv/run-ready

clean:
	rm -rf .venv build dist site *.egg-info
