# Everything that the lab can do, from a fresh clone: `make help`.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# Sphinx has an environment of its own: the AWS CLI needs a docutils that is too old for it.
SPHINX := .venv/book/bin/python
BOOK_READY := .venv/book/.ready
EDITOR_OF_POLICIES := labkit/course/widgets/editor
BOOK_NPM := .venv/book/npm
BOOK_PYODIDE := $(BOOK_NPM)/node_modules/pyodide/package.json
# What a user's shell has set must not lead the tools of this folder elsewhere.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV
# Without bytecode, every program that the lab and its tests start compiles labkit again.
unexport PYTHONDONTWRITEBYTECODE
# uv asks the index that pip is set up for, with pip's certificates. What is set for uv itself goes first.
AS_PIP = eval "$$($(BIN)/python -m pip config list | sed -nE -e 's/\\n/ /g' \
  -e 's/^[^=]*\.index-url=(.*)/: $${UV_DEFAULT_INDEX:=\1}; export UV_DEFAULT_INDEX/p' \
  -e 's/^[^=]*\.extra-index-url=(.*)/: $${UV_INDEX:=\1}; export UV_INDEX/p' \
  -e 's/^[^=]*\.cert=(.*)/: $${SSL_CERT_FILE:=\1}; export SSL_CERT_FILE/p')"
# uv's lines as a count that grows, in a terminal; elsewhere each part is a line. Its warnings and errors are shown, but
# for the one that it copies instead of linking.
COUNTED := awk 'BEGIN {live = !system("test -t 1")} \
  /^ *Downloading / {if (!all++ && !live) {print "  downloading …"; fflush()}; next} \
  /^ *Downloaded / {if (live) {printf "\r  downloading: %d of %d large packages", ++n, all; fflush()}; next} \
  /^Prepared / {printf live ? "\r  installing …                              " : "  installing …\n"; fflush(); next} \
  /^(Using|Resolved|Uninstalled|Installed|Audited|Checked) |^ [-+~] |^warning: Failed to (hardlink|clone)|^ +If (the cache|this is)/ {next} \
  {print > "/dev/stderr"} END {if (live) print ""}'
# What needs no running lab, or little of one: under a minute in all.
FAST := tests/policy tests/webhook/test_review.py tests/test_layout.py tests/test_environment.py tests/test_tokens.py \
  tests/lab/test_parameters.py tests/lab/test_showing.py \
  $(addprefix tests/doctor/test_,$(addsuffix .py,explain findings permissions pod pod_probe provider service_account trust_policy webhook))
# The lines of the lock that pin uv.
PINNED_UV := awk '/^uv==/ {pinned = 1} pinned {print} pinned && !/\\$$/ {exit}' requirements.lock
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c

.DEFAULT_GOAL := help
.PHONY: help setup run lab lint test test-fast test-python test-notebooks test-kind test-eks coverage outputs pictures \
  book editor harm lessons kubectl-lines soak fuzz mutants walk workshop fleet bench wheel sdist offline release lock clean

help:  ## List what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY)  ## Make the virtual environment from requirements.lock (the others do it when they need it)

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "labkit needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Name another:  make PYTHON=python3.12 …")'
	@echo "Setting up .venv from requirements.lock (once; about 20 seconds, and the downloads) …"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip --disable-pip-version-check install --quiet --require-hashes -r <($(PINNED_UV))
	@$(AS_PIP); $(BIN)/uv pip install --python $(BIN)/python --require-hashes -r requirements.lock 2>&1 | $(COUNTED)
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --offline --editable .
	@touch $@
	@echo "Ready: .venv"

run: $(READY)  ## Run the whole lab once on the moto target, and show what each step did
	@$(BIN)/labkit run

lab: $(READY)  ## Open JupyterLab on your copies of the notebooks, in learn/
	@exec $(BIN)/labkit lab

lint: $(READY)  ## Check style, types, the layers of the imports, and the layout
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m tests.import_rules
	@$(BIN)/python -m pytest --quiet --tb=line -rN tests/test_layout.py tests/test_names.py tests/test_words.py tests/test_pages.py
	@$(BIN)/python -m tests.any_in_signatures

test: test-notebooks test-python  ## Run every test; what needs more than Python is skipped where it is missing, and named

test-fast: $(READY)  ## Run the tests that need no running lab: policy, doctor, webhook, layout, parameters
	@$(BIN)/python -m pytest -n 2 --dist loadfile $(FAST)

# Four workers even on two cores: part of what these tests do is wait. tests/conftest.py puts the long modules first.
test-python: $(READY) $(BOOK_READY) $(BOOK_PYODIDE)  ## Run the tests but the notebooks'
	@$(BIN)/python -m pytest -n 4 --dist loadscope --no-loadscope-reorder tests

test-notebooks: $(READY)  ## Compare every notebook's stored outputs with what it prints now
	@$(BIN)/python -m pytest -n 2 --dist loadscope --nbval --nbval-sanitize-with notebooks/sanitize.cfg -p no:cacheprovider notebooks

test-kind: $(READY)  ## Run the notebooks with target kind on the simulator's API, or with LABKIT_KUBECONFIG=… on that cluster
	@$(BIN)/python -m tests.targets.kind_suite

test-eks: $(READY)  ## Run the notebooks with target eks in the simulator, or with LABKIT_ACCOUNT_ID=… in that account
	@$(BIN)/python -m tests.targets.eks_suite

coverage: $(READY)  ## Run the tests but the notebooks', and print how much of labkit they reached
	@$(BIN)/python -m pytest -n 4 --dist loadscope --no-loadscope-reorder --cov --cov-report=term:skip-covered tests

outputs: $(READY)  ## Run every notebook and keep its outputs in it
	@$(BIN)/python -m labkit.runs notebooks/*.ipynb

pictures: $(READY)  ## Draw the pictures that the README and the notebooks show
	@$(BIN)/python -m labkit.course.widgets.flow notebooks/pictures

book: $(BOOK_READY) $(BOOK_PYODIDE)  ## Build the course as a site, dist/book/index.html; a broken link is an error
	@rm -rf .venv/book/html
	@$(SPHINX) -m sphinx --quiet --fail-on-warning --keep-going --fresh-env --doctree-dir .venv/book/.doctrees \
	  --conf-dir notebooks/book . .venv/book/html
	@rm -rf dist/book && mkdir -p dist && mv .venv/book/html dist/book
	@echo "Built: dist/book/index.html"

$(BOOK_READY): notebooks/book/requirements.lock | $(READY)
	@echo "Setting up .venv/book from notebooks/book/requirements.lock (once) …"
	@$(BIN)/uv venv --quiet --clear --python $(BIN)/python .venv/book
	@$(AS_PIP); $(BIN)/uv pip install --python $(SPHINX) --require-hashes -r $< 2>&1 | $(COUNTED)
	@touch $@

# Python for the browser. A book without it has the stored verdicts of "Who gets in?" alone.
$(BOOK_PYODIDE): notebooks/book/package-lock.json | $(BOOK_READY)
	@mkdir -p $(BOOK_NPM) && cp notebooks/book/package.json $< $(BOOK_NPM)
	@cd $(BOOK_NPM) && npm ci --silent --no-audit --no-fund && touch $(CURDIR)/$@ || \
	  { rm -rf $(CURDIR)/$(BOOK_NPM); echo 'Without npm or its registry, "Who gets in?" of the book only shows stored verdicts.'; }

editor:  ## Bundle CodeMirror for "Who gets in?" again, after a change in labkit/course/widgets/editor/ (needs npm)
	@rm -rf .venv/editor && mkdir -p .venv/editor && cp $(addprefix $(EDITOR_OF_POLICIES)/,editor.js package.json package-lock.json) .venv/editor
	@cd .venv/editor && npm ci --silent --no-audit --no-fund && npm run --silent build
	@cp .venv/editor/codemirror.js .venv/editor/LICENSES $(EDITOR_OF_POLICIES)

harm: $(READY)  ## Run the repairs of 60 pairs and 20 triples of faults beside a second team, which may not notice
	@$(BIN)/python -m tests.doctor.harm_suite

lessons: $(READY)  ## Try every exercise's near-misses and right answers, and every copy in a browser (make test does one of each)
	@LABKIT_LESSONS=all $(BIN)/python -m pytest -n 2 --dist loadscope tests/course/test_*.py tests/upgrade tests/course/widgets/test_lessons_in_jupyterlab.py

kubectl-lines: $(READY)  ## Type a learner's kubectl lines, and compare their exit codes with a real cluster's (LABKIT_KUBECONFIG=… LABKIT_IMAGE=…: on that cluster)
	@$(BIN)/python -m tests.kubectl_lines

soak: $(READY)  ## Let 50 learners work at one lab for two minutes (MINUTES=10: for ten), and check every answer
	@$(BIN)/python -m tests.soak --minutes $(or $(MINUTES),2) $(if $(KILL),--kill)

fuzz: $(READY)  ## Send 10,000 requests of any kind to each listener (EXAMPLES=…: so many); make test sends a few hundred
	@LABKIT_EXAMPLES=$(or $(EXAMPLES),10000) $(BIN)/python -m pytest -n 2 --timeout 3600 tests/fuzz

mutants: $(READY)  ## Change one thing in the code that decides who gets in, and see a test fail; SAMPLE=40 SEED=1: forty of them; FILE=labkit/tokens.py
	@SAMPLE=$(SAMPLE) SEED=$(SEED) FILE=$(FILE) $(BIN)/python -m tests.mutants

walk: $(READY)  ## Call every operation of the emulated AWS with each required member spoilt; make test does one in 12
	@LABKIT_WALK=all $(BIN)/python -m pytest -n 2 tests/simulator/aws/test_spoilt.py

workshop: $(READY)  ## Take six browsers through 01 to 05 in a workshop, while its hub is killed; make test takes two
	@LABKIT_SIX=1 $(BIN)/python -m pytest --timeout 1800 tests/workshop/test_workshop.py -k browsers

fleet: $(READY)  ## Run 200 rows over 20 clusters with ten planted faults, then resume with their causes mended
	@$(BIN)/python -m tests.runs.many
	@tests/runs/scheduler.sh

bench: $(READY)  ## Measure, and print the numbers
	@$(BIN)/python -m tests.bench

wheel: $(READY)  ## Build dist/labkit-….whl: labkit and the notebooks
	@$(BIN)/uv build --quiet --wheel --offline --no-build-isolation --python $(BIN)/python --out-dir dist . && ls dist/*.whl

sdist: $(READY)  ## Build dist/labkit-….tar.gz, the sources that a package index takes beside the wheel
	@$(BIN)/uv build --quiet --sdist --offline --no-build-isolation --python $(BIN)/python --out-dir dist . && ls dist/*.tar.gz

offline: wheel book  ## Build a folder for each platform that installs the lab without a network, in dist/offline/ (ONLY="--platform linux-x86_64 --python 3.13")
	@$(BIN)/python .ci/offline/build.py $(ONLY)

release: $(READY)  ## Build the wheel, the sources, the book, the notes and a recipe of the tag that is checked out, in dist/
	@$(BIN)/python .ci/release.py

lock: $(READY)  ## Write the three requirements.lock again; versions stay, unless you deleted their line
	@$(AS_PIP); $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-emit-find-links --extra fleet --extra workshop --group test --group lint --group build pyproject.toml -o requirements.lock \
	  --custom-compile-command "make lock"
	@$(AS_PIP); $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-emit-find-links --extra fleet --constraints requirements.lock pyproject.toml -o .ci/offline/requirements.lock \
	  --no-annotate --custom-compile-command "make lock"
	@$(AS_PIP); $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-emit-find-links notebooks/book/requirements.in -o notebooks/book/requirements.lock --custom-compile-command "make lock"

clean:  ## End the lab and remove what was made here, but for learn/: that is yours
	@test ! -x $(BIN)/labkit || { $(BIN)/labkit down; $(BIN)/labkit down --bare; }
	rm -rf .venv .lab .lab-bare runs dist .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info tests/clients/javascript/node_modules
	@test ! -d learn || echo "learn/ stays: your notebooks are in it."
