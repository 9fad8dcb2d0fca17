# Everything starts from a bare Python 3.10+ with venv; the environment is made on first use.
PYTHON ?= python3
VENV ?= .venv
IN_VENV = PATH="$(CURDIR)/$(VENV)/bin:$$PATH"

.PHONY: help env demo test lint bench clean

help:  ## this list
	@grep -hE '^[a-z]+:.*##' Makefile | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 18

env: $(VENV)/core  ## the environment alone

demo: $(VENV)/core  ## everything from nothing: text, nine small runs, table and pictures
	@$(IN_VENV) bash runs/demo.sh

test: $(VENV)/dev  ## everything from nothing: environment, tests (2 to 15 minutes on two cores)
	@$(IN_VENV) python -m pytest

lint: $(VENV)/dev  ## style and common mistakes
	@$(IN_VENV) ruff check . && $(IN_VENV) ruff format --check .

bench: $(VENV)/core  ## speed of kernels and training steps on this machine, beside other ways to compute them
	@$(IN_VENV) python -m tests.bench

clean:  ## remove the environment; data/ and out/ stay
	rm -rf $(VENV)

$(VENV)/core: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "error: $(PYTHON) is older than 3.10; PYTHON=python3.12 make ... names another" >&2; exit 2; }
	@echo "creating the environment in $(VENV) (PyTorch and a few libraries; a minute or more) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

$(VENV)/dev: requirements-dev.txt $(VENV)/core
	@echo "adding what tests need ..."
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@
