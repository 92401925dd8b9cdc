# Two commands do everything on a fresh machine with Python >= 3.11:
#   make reproduce   set-up, then Theorem 1 certified and Figure 1 regenerated, on one page
#   make test        set-up, then lint, types and tests
# and one more builds the site that pairs the derivation with the code:
#   make docs        set-up, then build/docs/index.html
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
OUT ?= runs

# Small dense linear algebra is far slower with BLAS threads than without.
export OMP_NUM_THREADS ?= 1

.PHONY: reproduce test docs lint theory thorough slow benchmarks clean
.DELETE_ON_ERROR:

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if v >= (3, 11) else "Python >= 3.11 is needed, this is %d.%d: run make PYTHON=/path/to/python3.11" % v[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

reproduce: $(STAMP)
	$(BIN)/action-collapse reproduce --out $(OUT)

test: $(STAMP) lint
	$(BIN)/python -m pytest

docs: $(STAMP)
	$(BIN)/sphinx-build -E -W -n --keep-going -q -b html docs build/docs
	$(BIN)/python docs/_ext/check_links.py build/docs

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

theory: $(STAMP)
	$(BIN)/python -m pytest -m theory

thorough: $(STAMP)
	$(BIN)/python -m pytest -m theory --hypothesis-profile=thorough

slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

benchmarks: $(STAMP)
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV)
