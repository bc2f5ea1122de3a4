# Every target works alone in a fresh clone: it needs Python >= 3.11 and make, and builds .venv when it is missing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
VLLM := $(VENV)/.vllm

.PHONY: setup compare test slow vllm test-vllm lint wheel tiny clean

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
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile -m "not slow and not vllm"

slow: setup
	$(BIN)/python -m pytest -n auto --maxprocesses 4 -m "slow and not vllm"

# vLLM's CPU build. Its pins are a whole set: a resolver would ask for packages that have no CPU build.
vllm: $(VLLM)

$(VLLM): $(STAMP) constraints-vllm.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement constraints-vllm.txt
	touch $(VLLM)

# One after the other: every engine takes all cores and a GiB for its cache.
test-vllm: vllm
	$(BIN)/python -m pytest -m vllm

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

wheel: setup
	$(BIN)/python -m build --no-isolation --outdir dist .

tiny: setup
	$(BIN)/python -m harness.families.tiny.train

clean:
	rm -rf $(VENV) dist build results .pytest_cache .ruff_cache .hypothesis
