# Two commands: `make book` and `make test`. `make help` lists the rest.
# Needs Python 3.11-3.13, make and git; uses uv where it is installed.

SHELL := /bin/bash
VENV ?= .venv
PRESET ?= laptop
CORES ?= all
PORT ?= 8000
UV := $(shell command -v uv)
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
ifndef PYTHON
PYTHON := $(shell for p in python3 python3.13 python3.12 python3.11; do $$p -c '$(SUPPORTED)' 2>/dev/null && echo $$p && break; done)
endif
PY := $(VENV)/bin/python
WORKFLOW := $(PY) -m coala_lib.workflow
BEGAN := $(shell date +%s)

.PHONY: help env book test html notebooks sync run plan bench parity doctor lint fmt serve clean
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

env: $(VENV)/.installed ## make the environment alone

# An interrupted installation leaves `.unfinished`, and the next one starts over; only a folder begun here is deleted.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(or $(PYTHON),false) -c '$(SUPPORTED)' || { \
	  echo "This book needs Python 3.11, 3.12 or 3.13, and $(or $(PYTHON),python3) is none of them: install one, or name it as in: make env PYTHON=/path/to/python3.12" >&2; exit 1; }
	@if [ -e $(VENV)/.unfinished ]; then rm -rf $(VENV); fi
	@mkdir -p $(VENV) && touch $(VENV)/.unfinished
ifdef UV
	uv venv --quiet --allow-existing --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" $(VENV)
	uv pip install --python $(PY) -c constraints.txt -e '.[book,test]'
else
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --disable-pip-version-check -c constraints.txt -e '.[book,test]'
endif
	@touch $@ && rm $(VENV)/.unfinished

book: env ## run every chapter at the laptop preset, then render the book
	$(WORKFLOW) all --preset laptop --cores $(CORES)
	$(WORKFLOW) html --from-runs --began $(BEGAN)

test: lint ## everything the continuous integration runs
	$(PY) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: env ## check style
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

fmt: env ## mend style: first the chapters' text, from which their notebooks follow, then the rest
	PATH="$(abspath $(VENV))/bin:$$PATH" $(PY) -m jupytext --quiet --pipe "ruff format --stdin-filename notebooks/chapter.py -" notebooks/*.md
	$(WORKFLOW) tidy
	$(WORKFLOW) sync
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

html: env ## render what is committed, without running anything
	$(WORKFLOW) html --began $(BEGAN)

notebooks: env ## refresh the committed laptop runs
	$(WORKFLOW) all --preset laptop --cores $(CORES)
	$(WORKFLOW) promote

sync: env ## carry the chapters' text to their notebooks, without running them
	$(WORKFLOW) sync

run: env ## run one chapter: make run NB=slug PRESET=gpu P="seed=1 reg=0.1"
	$(WORKFLOW) run $(or $(NB),$(error name a chapter, as in: make run NB=coala_end_to_end)) --preset $(PRESET) $(addprefix -p ,$(P))

plan: env ## list the runs of a preset: parameters, inputs, last known cost
	$(WORKFLOW) plan --preset $(PRESET)

bench: ## measure the solver against other packages, in an environment of its own
	$(PYTHON) -m venv _build/bench
	_build/bench/bin/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[bench]'
	_build/bench/bin/python -m benchmarks.solver $(ARGS)

parity: ## regenerate the reference outputs of PyTorch models, in an environment of its own
	$(PYTHON) -m venv _build/parity
	_build/parity/bin/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[parity]'
	_build/parity/bin/python -m tests.numerics.parity

doctor: env ## check this machine and say what to do
	$(WORKFLOW) doctor

serve: ## serve the rendered book on this machine
	$(PY) -m http.server --bind 127.0.0.1 --directory _build/html $(PORT)

clean: ## remove everything that was built, except the environment
	rm -rf _build .snakemake .pytest_cache .hypothesis .ruff_cache
