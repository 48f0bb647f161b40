# The only set-up is `make`: every target below creates .venv by itself where it is missing.
SHELL  := /bin/bash
PYTHON ?= python3
# requirements.txt here keeps a torch that already lies in .venv, a CPU-only one for instance
LOCK   ?= requirements-lock.txt

VENV  := .venv
BIN   := $(VENV)/bin
READY := $(VENV)/.ready

# The types of the explorers' JavaScript, where npm is there and can fetch the compiler once
TYPESCRIPT := typescript@5.9.3
TSC        := $(VENV)/node_modules/.bin/tsc
define CHECK_TYPES
  if test ! -x $(TSC) && command -v npm > /dev/null; then \
    npm install --prefix $(VENV) --silent --no-audit --no-fund --no-save --fetch-retries 0 --fetch-timeout 30000 $(TYPESCRIPT) || true; fi; \
  if test -x $(TSC) && command -v node > /dev/null; then \
    echo "$(TSC) --project nodecore/pages/explorers/js"; $(TSC) --project nodecore/pages/explorers/js; \
  else echo "The types of the explorers' JavaScript are NOT checked: that needs npm and, once, its registry."; fi
endef

.DEFAULT_GOAL := help
.PHONY: help book pdf test lab reproduce scorecard bench overview upgrade clean

help:  ## print this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  Set-up runs once, into $(VENV). Other Python: make book PYTHON=python3.12"

book: $(READY)  ## execute every chapter, build the HTML book and say where it is
	$(BIN)/python -m nodecore book

pdf: $(READY)  ## print the book that was built last to one PDF, _build/book.pdf (needs Chromium)
	$(BIN)/python -c 'from nodecore.pages.pdf import print_book; print(print_book())'

test: $(READY)  ## lint, types, tests, all chapters at the smoke profile, the pages in a browser
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	@$(CHECK_TYPES)
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --max-worker-restart 0 \
	  --dist loadfile

# LAB_ARGS='--no-browser --port 8899' passes options on; root, as in a container, has to be allowed
lab: $(READY)  ## JupyterLab; the chapters in book/ open as notebooks
	$(BIN)/jupyter lab --notebook-dir=. $(if $(filter 0,$(shell id -u)),--allow-root) $(LAB_ARGS)

reproduce: $(READY)  ## train the evidence that is missing in book/results; stop and resume at will
	$(BIN)/python -m nodecore study run --committed

scorecard: $(READY)  ## decide the claims anew: book/claims.yml, the README's table, metadata
	$(BIN)/python -c 'from nodecore.claims.scorecard import refresh; refresh()'

# BENCH=--quick sees whether everything runs; BENCH='--only MNIST' measures a part
bench: $(READY) .venv-bench/.ready  ## measure the speed of training and solving against peers
	$(BIN)/python -m benchmarks $(BENCH)

overview: $(READY)  ## draw the picture of the README anew, from the book that was built last
	$(BIN)/python -c 'from nodecore.pages.downloads import export_figure as e; \
	  e("_build/stage/book/02_trajectory_crossing.ipynb", "fig-crossing", "book/assets/overview.png")'

upgrade:  ## tell whether newer packages still build the book, in a throwaway environment (6 GB)
	PYTHON=$(PYTHON) .ci/upgrade

clean:  ## remove what was built (what you trained, _build/results, stays)
	rm -rf _build/html _build/book.pdf _build/stage _build/test _build/.doctrees _build/sphinx.log
	rm -rf .pytest_cache .ruff_cache .hypothesis

# the peers of the benchmark, apart from the book: JAX, and in a folder what runs on the book's torch
.venv-bench/.ready: requirements-bench.txt requirements-bench-torch.txt
	$(PYTHON) -m venv --clear .venv-bench
	.venv-bench/bin/python -m pip install --disable-pip-version-check --quiet -r $<
	.venv-bench/bin/python -m pip install --disable-pip-version-check --quiet --no-deps \
	  --target .venv-bench/torchode -r requirements-bench-torch.txt
	@touch $@

# The stamp is younger than the lock: nothing to set up. A changed lock is installed on top.
$(READY): $(LOCK) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: Python 3.11 or newer is needed, but $(PYTHON) is $$($(PYTHON) --version 2>&1)." \
	       "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "error: $(PYTHON) cannot make a virtual environment (on Debian: apt-get install python3-venv)" >&2; exit 1; }
	$(BIN)/python -m pip install --disable-pip-version-check -r $(LOCK)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps -e .
	PATH="$(CURDIR)/$(BIN):$$PATH" JUPYTER_CONFIG_DIR=$(VENV)/etc/jupyter $(BIN)/jupytext-config set-default-viewer python
	@touch $@
