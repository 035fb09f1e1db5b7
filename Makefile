# Commands for people and for CI; `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-done
DEMO_STAMP := $(VENV)/.demo-done
DIST := dist
# Tests run side by side, more than there are cores, as they wait for much. A module's tests stay together: they share
# what takes long to make. Unit tests wait for nothing, and each worker has to read them all.
WORKERS ?= 3
UNIT_WORKERS = $(shell nproc | awk '{ print ($$1 < $(WORKERS)) ? $$1 : $(WORKERS) }')
PYTEST := $(BIN)/python -m pytest
EPOCH = $(shell git log -1 --format=%ct 2>/dev/null)
CODE := src packages tests bench examples tools
LOCK := UV_CUSTOM_COMPILE_COMMAND="make lock" uv pip compile --quiet --universal --python-version 3.11 \
	--generate-hashes

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all test-unit test-kit test-packages test-escapes test-walls test-limits test-soak check bench dist lock clean
.DELETE_ON_ERROR:

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST)

setup: $(STAMP) ## make .venv with everything, pinned by hash (PYTHON=python3.x chooses the interpreter)
	@:

# The old .venv is kept if its interpreter still starts, so a changed requirement costs seconds and not a minute.
define venv
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	|| { echo "isorun needs Python 3.11 or newer: make $(@F:.%-done=%) PYTHON=/path/to/python3" >&2; exit 1; }
@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	|| { echo "this Python cannot make a virtual environment: apt install python3-venv" >&2; exit 1; }
@$(BIN)/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
endef

# Whoever has everything has what the demo needs, so `make setup` leaves both stamps.
$(STAMP): pyproject.toml packages/sandbox_runner/pyproject.toml requirements/dev.txt requirements/demo.txt
	$(venv)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements/dev.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e packages/sandbox_runner -e .
	@# The jail cannot write bytecode, and an editable install compiles none. Programs of the demo await at top level.
	$(BIN)/python -m compileall -q -x demo_programs src packages
	@touch $(DEMO_STAMP) $@

# pip is not quiet: a newcomer sees what half a minute is spent on.
$(DEMO_STAMP): pyproject.toml packages/sandbox_runner/pyproject.toml requirements/demo.txt
	@echo "1/3  a virtual environment, in $(VENV)"
	$(venv)
	@echo "2/3  what the demo needs, pinned by hash: numpy, pandas, matplotlib, typst and others"
	@$(BIN)/python -m pip install --require-hashes -r requirements/demo.txt
	@echo "3/3  isorun itself, from this checkout"
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@$(BIN)/python -m compileall -q -x demo_programs src packages
	@touch $@

demo: $(DEMO_STAMP) ## programs work on real data inside the walls, and others fail to get out; installs what that needs
	$(BIN)/isorun demo

# An engine, what measures the machine and what is short take most of the time: they are left to test-all.
test: export DOCKER_HOST = unix:///dev/null
test: test-unit test-kit test-packages test-walls ## in minutes, what needs neither Docker nor the machine alone

test-all: test-unit test-kit test-packages test-escapes ## every test; ISORUN_REQUIRE=name,name turns skips into failures

test-unit: setup
	$(PYTEST) -m "not alone and not slow" -n $(UNIT_WORKERS) --dist worksteal tests/unit

# Each worker reads all the modules that it is given, so it is given those that have such tests.
marked = $(shell grep -rl --include='test_*.py' 'mark\.$(1)' $(2))

test-kit: setup # and the unit tests that are too slow to be waited for
	$(PYTEST) -m "not alone and (slow or not unit)" -n $(WORKERS) --dist loadfile $(call marked,slow,tests/unit) \
		tests/conformance tests/docker tests/docs tests/service

test-packages: setup # with the package's own configuration
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile packages/sandbox_runner/tests --timeout=60

test-escapes: test-walls test-limits test-soak

test-walls: setup
	$(PYTEST) -m "not alone" -n $(WORKERS) --dist loadfile tests/escapes

SOAK := tests/escapes/test_soak.py

test-limits: setup # what measures the machine, or is short, or takes all there is: nothing may run beside it
	$(PYTEST) -m alone tests/escapes --ignore=$(SOAK)
	@# In a session of its own: the kit's keeps sandboxes open, and an attack looks for what is left of any.
	$(PYTEST) -m alone $(filter-out tests/escapes/%,$(call marked,alone,tests))

test-soak: setup # thousands of runs, and what is left of them: another soak may run beside it
	$(PYTEST) $(SOAK)

check: setup ## lint, format, types, direction of imports, rules of the house; then how many exceptions there are
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/house.py
	@count() { grep -rEho --include='*.py' "$$2" $(wildcard $(CODE)) | wc -l | xargs printf '%-24s %d\n' "$$1"; }; \
		count 'lint ignores (noqa)' '# noqa'; \
		count 'type ignores' '# type: ignore'; \
		count 'skips' 'pytest\.(mark\.)?(skip|skipif|importorskip|xfail)\b|\brequire\("'

bench: setup ## every figure of docs/performance.md, as a table and as JSON (ARGS="..." is passed on)
	$(BIN)/python -m bench $(ARGS)

# The commit's time is in every archive, so the same commit gives the same bytes; where there is no git, hatchling's own.
dist: setup ## both wheels and both source archives, in dist/ (DIST=folder chooses another); needs no network
	@mkdir -p "$(DIST)"
	@# The shell makes the paths absolute: make's own function takes one with a blank for two.
	@set -e; $(if $(EPOCH),export SOURCE_DATE_EPOCH=$(EPOCH);) bin=$$(cd "$(BIN)" && pwd); to=$$(cd "$(DIST)" && pwd); \
	for project in packages/sandbox_runner .; do \
		(cd $$project && "$$bin/python" -m hatchling build -d "$$to"); \
	done

lock: ## compile requirements/*.txt and those of the images anew (needs uv)
	$(LOCK) pyproject.toml -o requirements/base.txt
	$(LOCK) pyproject.toml requirements/build.in --extra demo --extra dev -c requirements/base.txt \
		-o requirements/dev.txt
	$(LOCK) pyproject.toml requirements/build.in --extra demo -c requirements/dev.txt -o requirements/demo.txt
	$(LOCK) pyproject.toml --extra server --extra mcp -c requirements/dev.txt -o requirements-chat.txt
	$(LOCK) requirements/image.in -c requirements/dev.txt -o deployment/docker/py-code-exec/requirements.txt
	$(LOCK) requirements/build.in -c requirements/dev.txt -o deployment/docker/all_in_one/requirements-build.txt

clean: ## remove .venv and every cache
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	find $(wildcard $(CODE)) -name __pycache__ -type d -prune -exec rm -rf {} +
