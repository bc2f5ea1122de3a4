# Every target works alone in a fresh clone: it needs Python >= 3.11 and make, and builds .venv when it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup compare test slow lint wheel tiny clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python %d.%d is too old\nhint: make PYTHON=python3.11" % sys.version_info[:2])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch numpy
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

compare: setup
	$(BIN)/harness compare

test: setup
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile -m "not slow"

slow: setup
	$(BIN)/python -m pytest -n auto --maxprocesses 4 -m slow

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

wheel: setup
	$(BIN)/python -m build --no-isolation --outdir dist .

tiny: setup
	$(BIN)/python -m harness.families.tiny.train

clean:
	rm -rf $(VENV) dist build results .pytest_cache .ruff_cache .hypothesis
