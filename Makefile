# Everything that the lab can do, from a fresh clone: `make help`.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# Jupyter wants to be told that it may run as root, as it does in most containers.
ALLOW_ROOT := $(if $(filter 0,$(shell id -u)),--allow-root)
# What a user's shell has set must not lead the tools of this folder elsewhere.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV
# pip's lines, as a count that grows; what it says on stderr is shown as it is.
COUNTED := awk '/^(Collecting|Requirement already|Ignoring)/ {printf "\r  %d of %d packages", ++n, all; fflush()} \
  /^Installing/ {printf "\r  installing them …       "; fflush()} END {print ""}' all=$$(grep -c "^[a-z0-9A-Z].*==" requirements.lock)
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c

.DEFAULT_GOAL := help
.PHONY: help setup run lab test test-python test-notebooks test-kind test-eks outputs bench lint lock clean

help:  ## List what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY)  ## Make the virtual environment from requirements.lock (the others do it when they need it)

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "labkit needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Name another:  make PYTHON=python3.12 …")'
	@echo "Setting up .venv from requirements.lock (once; about a minute) …"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip --disable-pip-version-check install --require-hashes -r requirements.lock | $(COUNTED)
	@$(BIN)/python -m pip --disable-pip-version-check install --quiet --no-deps --no-build-isolation --editable .
	@touch $@
	@echo "Ready: .venv"

run: $(READY)  ## Run the whole lab once on the moto target, and show what each step did
	@$(BIN)/labkit run

# labkit/cli/jupyter/ turns off what would ask the internet: JupyterLab's news and its extension manager.
lab: $(READY)  ## Open JupyterLab on the first notebook
	@$(BIN)/labkit up && eval "$$($(BIN)/labkit env)" \
	  && JUPYTER_CONFIG_PATH="$(CURDIR)/labkit/cli/jupyter" exec $(BIN)/jupyter lab $(ALLOW_ROOT) \
	  --ServerApp.root_dir="$(CURDIR)" notebooks/00-the-problem.ipynb

test: test-notebooks test-python  ## Run every test; what needs more than Python is skipped where it is missing, and named

# Three workers even on two cores: much of what these tests do is wait.
test-python: $(READY)  ## Run the tests but the notebooks'
	@$(BIN)/python -m pytest -n 3 --dist loadscope tests

test-notebooks: $(READY)  ## Compare every notebook's stored outputs with what it prints now
	@$(BIN)/python -m pytest -n 2 --dist loadscope --nbval --nbval-sanitize-with notebooks/sanitize.cfg -p no:cacheprovider notebooks

test-kind: $(READY)  ## Run the contract and the notebooks with target kind: on LABKIT_KUBECONFIG, LABKIT_CONTEXT, or the emulator's API
	@$(BIN)/python -m tests.targets.kind_suite

test-eks: $(READY)  ## Run the contract and the notebooks with target eks: in the emulator, or with LABKIT_ACCOUNT_ID=… in that account
	@$(BIN)/python -m tests.targets.eks_suite

outputs: $(READY)  ## Run every notebook and keep its outputs in it
	@$(BIN)/python -m labkit.runs notebooks/*.ipynb

bench: $(READY)  ## Measure, and print the numbers
	@$(BIN)/python -m tests.bench

lint: $(READY)  ## Check style
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

lock: $(READY)  ## Write requirements.lock anew from pyproject.toml
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-emit-find-links --group test --group build pyproject.toml -o requirements.lock --custom-compile-command "make lock"

clean:  ## End the lab and remove what was made here
	@test ! -x $(BIN)/labkit || { $(BIN)/labkit down; $(BIN)/labkit down --bare; }
	rm -rf .venv .lab .lab-bare runs .pytest_cache .ruff_cache .hypothesis *.egg-info tests/clients/javascript/node_modules
