# make studio  the page for a browser: people, scans, training, takes; opens by itself
# make demo    the whole job once, on a person who does not exist: open demo-out/report/report.html
# make test    the tests
# make lint    style and types: ruff and pyright
# make docs    docs/cli.md from the commands' own help
# make clean   removes what these made (.venv, demo-out, caches)
# Nothing but Python 3.10-3.12 and a package registry is needed; a second call installs nothing.

SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
DEMO := demo-out
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# wheels and tests may be larger than the system's temporary folder
export TMPDIR := $(CURDIR)/$(VENV)/tmp

.PHONY: studio demo test lint docs clean
.DELETE_ON_ERROR:

# ARGS: mystudio studio's, such as ARGS="--no-open --port 9000"
studio: $(VENV)/installed
	@mkdir -p $(TMPDIR)
	$(BIN)/mystudio studio $(ARGS)

demo: $(VENV)/installed
	@mkdir -p $(TMPDIR)
	$(BIN)/mystudio demo -o $(DEMO)

# one process a core, each with one thread: more threads than cores wait for each other; tests/conftest.py orders files
test: $(VENV)/installed-test
	@mkdir -p $(TMPDIR)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses=4 --dist loadfile --no-loadscope-reorder $(ARGS)

# pyright and its node come from the package registry; without the variable it would ask there for a newer release
lint: $(VENV)/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright --project pyproject.toml --pythonpath $(BIN)/python

docs: $(VENV)/installed
	$(BIN)/python docs/write_cli.py

clean:
	rm -rf $(VENV) $(DEMO) build *.egg-info .pytest_cache .ruff_cache .hypothesis

$(VENV)/usable:
	@.ci/make_venv $(VENV)
	@touch $@

$(VENV)/installed: pyproject.toml | $(VENV)/usable
	@mkdir -p $(TMPDIR)
	$(BIN)/python -m pip install --quiet --no-compile -e .
	@touch $@

$(VENV)/installed-test: pyproject.toml | $(VENV)/usable
	@mkdir -p $(TMPDIR)
	$(BIN)/python -m pip install --quiet --no-compile -e '.[test]'
	@touch $@ $(VENV)/installed
