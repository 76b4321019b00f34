# Perdure: the same commands here, on a developer's machine and in CI. `make` prints them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
export PIP_DISABLE_PIP_VERSION_CHECK := 1

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
PYTEST := $(BIN)/python -m pytest -c tests/pytest.ini --rootdir tests
JOBS ?= 2

SCHEMA ?= perdure
FORCE ?=
QUICK ?=
SECONDS ?= 60
FIRST ?= 1
ARGS ?=
BENCH := .cache/bench/venv
IMAGE ?= perdure
IMAGE_ARGS ?=
BUILD_SQL = $(PYTHON) python/src/perdure/_build.py --schema '$(SCHEMA)'

# ---------------------------------------------------------------------------------------------- what people type

.PHONY: help
help:
	@echo "make demo, then make test. The rest:"; echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-13s %s\n", $$1, $$2 }' Makefile

.PHONY: demo
demo: $(READY)  ## process a few hundred orders while workers are killed; needs no Postgres of yours
	@PYTHONPATH=python/examples $(BIN)/python -m orders $(ARGS)

.PHONY: test
test: $(READY) provision lint  ## everything, on PostgreSQL 15 with pg_cron
	@echo "[test] PostgreSQL $${PERDURE_TEST_PG:-15}, everything"
	@$(PYTEST) tests -n $(JOBS) $(ARGS)

.PHONY: test-failover
test-failover: $(READY) provision  ## failover, split brain and restores on two hosts made of network namespaces; needs root
	@$(BIN)/python tests/failover/hosts.py
	@echo "[test] PostgreSQL $${PERDURE_TEST_PG:-15}, failover"
	@$(PYTEST) tests/failover -m failover $(ARGS)

.PHONY: test-core
test-core: $(READY) provision  ## what does not need pg_cron or Docker and is quick; PERDURE_TEST_PG=16|17|18 chooses the version
	@echo "[test] PostgreSQL $${PERDURE_TEST_PG:-15}, the core"
	@$(PYTEST) tests -n $(JOBS) -m "not cron and not docker and not slow" $(ARGS)

.PHONY: test-all
test-all: test  ## everything on 15, then the whole suite (pg_cron aside) on 16, 17 and 18
	@for major in 16 17 18; do \
	  export PERDURE_TEST_PG=$$major; \
	  $(BIN)/python tests/support/provision.py; \
	  echo "[test] PostgreSQL $$major, everything but pg_cron"; \
	  $(PYTEST) tests -n $(JOBS) -m "not cron" $(ARGS); \
	done

.PHONY: soak
soak: $(READY) provision  ## simulate seed after seed: SECONDS=60 FIRST=1; ends at the first that breaks a promise
	@cd tests && PYTHONPATH=. ../$(BIN)/python -m sim.soak --seconds $(SECONDS) --first $(FIRST) $(ARGS)

.PHONY: bench
bench: $(READY) provision $(BENCH)/.ready  ## measure beside DBOS and Absurd, half an hour on a machine that does nothing else; QUICK=1: five minutes
	@cd tests && ../$(BIN)/python -m bench --scale $(if $(QUICK),quick,full) --peers ../$(BENCH)/bin/python \
	  --command 'make bench$(if $(QUICK), QUICK=1)' $(ARGS)

.PHONY: lint
lint: $(READY)  ## sqlfluff, ruff, mypy
	@echo "[lint] ruff"
	@$(BIN)/ruff check --output-format concise python tests
	@$(BIN)/ruff format --check --quiet python tests
	@echo "[lint] mypy"
	@$(BIN)/mypy --config-file python/pyproject.toml
	@cd tests && ../$(BIN)/mypy --config-file ../python/pyproject.toml support bench conftest.py
	@echo "[lint] sqlfluff"
	@$(BIN)/sqlfluff lint --processes $(JOBS) --disable-progress-bar --nocolor sql

.PHONY: install
install:  ## install into an existing database: DB=<name or URL> SCHEMA=perdure (needs psql)
	@$(need-db)
	@$(BUILD_SQL) install | psql -X -q -v ON_ERROR_STOP=1 -1 -d '$(DB)' -f -
	@echo "Perdure is installed in schema $(SCHEMA)."

.PHONY: uninstall
uninstall:  ## remove it from a database, data included: DB=<name or URL> SCHEMA=perdure [FORCE=1]
	@$(need-db)
	@$(BUILD_SQL) uninstall | PGOPTIONS="$${PGOPTIONS:-} $(if $(FORCE),-c $(SCHEMA).force=on)" \
	  psql -X -q -v ON_ERROR_STOP=1 -1 -d '$(DB)' -f -
	@echo "Perdure is gone from schema $(SCHEMA)."

.PHONY: sql
sql:  ## print the one file that installs it: SCHEMA=perdure
	@$(BUILD_SQL) install

.PHONY: build
build: $(READY)  ## wheel and sdist into dist/
	@rm -rf dist
	@$(BIN)/python -m build --outdir dist python
	@ls -l dist

.PHONY: image
image: build  ## the Docker image perdure: Postgres 17 with pg_cron and Perdure
	docker build $(IMAGE_ARGS) --tag '$(IMAGE)' --file docker/Dockerfile .

.PHONY: reference
reference: $(READY) provision  ## write sql/REFERENCE.md anew from the comments in the catalog
	@PERDURE_WRITE=1 $(PYTEST) tests/golden/test_reference.py -q

.PHONY: golden
golden: $(READY) provision  ## write tests/golden/schema.sql anew: what the database looks like
	@PERDURE_WRITE=1 $(PYTEST) tests/golden/test_schema.py -q

.PHONY: format
format: $(READY)  ## let ruff format the Python
	@$(BIN)/ruff check --fix --quiet python tests; $(BIN)/ruff format python tests

.PHONY: clean
clean:  ## remove what was made here: environment, caches, dist/
	@rm -rf .venv .cache dist .mypy_cache .ruff_cache .pytest_cache tests/.pytest_cache tests/.mypy_cache .hypothesis
	@find python tests -name __pycache__ -type d -prune -exec rm -rf {} +

# ---------------------------------------------------------------------------------------------- what they stand on

define need-db
[ -n '$(DB)' ] || { echo "say which database: make $@ DB=<name or URL> [SCHEMA=perdure]" >&2; exit 2; }; \
command -v psql >/dev/null || { echo "psql is not here; without it: perdure $@" >&2; exit 2; }
endef

.PHONY: provision
provision: $(READY)
	@$(BIN)/python tests/support/provision.py

# Debian's python3 comes without venv; root may install it, anyone else is told.
.venv/bin/python:
	@echo "[env] making .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "Perdure needs Python 3.10 or later" >&2; exit 2; }
	@if ! $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv >/dev/null; \
	  else echo "Python's venv is missing: install Debian's package python3-venv" >&2; exit 2; fi; \
	fi
	@$(PYTHON) -m venv .venv

$(READY): .venv/bin/python python/pyproject.toml python/hatch_build.py
	@echo "[env] installing the driver and its tools into .venv"
	@$(BIN)/python -m pip install --quiet --editable 'python[dev,embedded,pydantic]'
	@touch $(READY)

# The peers have an environment of their own: what they depend on is none of the driver's business.
$(BENCH)/.ready: tests/bench/requirements.txt | $(READY)
	@echo "[env] installing what is measured beside Perdure into $(BENCH)"
	@$(BIN)/python -m venv $(BENCH)
	@$(BENCH)/bin/python -m pip install --quiet --requirement tests/bench/requirements.txt
	@touch $@
