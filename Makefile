# Everything starts here, with nothing but make and Python 3.11 or newer on Linux x86-64.
# Packages come from the index that pip and uv are configured for, exactly as locked in uv.lock.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.synced
# The machine's own Python: uv's downloads of one need a host that may be out of reach.
export UV_PYTHON_DOWNLOADS := never
export UV_PROJECT_ENVIRONMENT := $(VENV)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

DETACH ?=
PORT_BASE ?=
ARGS ?=
TESTS ?= tests
UP_ARGS := $(if $(DETACH),--detach) $(if $(PORT_BASE),--port-base $(PORT_BASE)) $(ARGS)

.PHONY: help
help: ## Show this help
	@if [ -t 1 ]; then b='\033[1m' c='\033[36m' d='\033[2m' n='\033[0m'; else b= c= d= n=; fi; \
	printf "\n  $${b}Meterplane$${n}: run inference as a business\n\n"; \
	awk -F ':.*## ' -v c="$$c" -v n="$$n" \
	  '/^[a-z-]+:.*## / { printf "  " c "make %-13s" n " %s\n", $$1, $$2 }' $(MAKEFILE_LIST); \
	printf "\n$${d}  make up DETACH=1          return when ready\n"; \
	printf '  make up PORT_BASE=9700    use other ports\n'; \
	printf '  make up ARGS=--reset      start afresh, after asking\n'; \
	printf "  make test TESTS=tests/gateway ARGS=-x$${n}\n\n"

.PHONY: up
up: $(READY) ## Start everything and print URLs, a login, an API key and a curl line
	@exec $(BIN)/python manage.py up $(UP_ARGS)

.PHONY: down
down: $(READY) ## Stop exactly what `make up` started; data stays
	@exec $(BIN)/python manage.py down $(ARGS)

.PHONY: status
status: $(READY) ## Show what runs, since when, and how it is
	@exec $(BIN)/python manage.py status $(ARGS)

.PHONY: doctor
doctor: $(READY) ## Check this machine and say how to mend what is wrong
	@exec $(BIN)/python manage.py doctor $(ARGS)

# A file stays on one worker: the scenarios share one whole stack, in order. Three workers keep two
# cores at work: each waits a third of its time for servers that it starts and kills.
WORKERS ?= 3
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: test
test: $(READY) ## Run the fast tests against real servers
	@exec $(PYTEST) -m 'not long' $(ARGS) $(TESTS)

.PHONY: test-long
test-long: $(READY) ## Run the long tests too
	@exec $(PYTEST) --timeout 900 $(ARGS) $(TESTS)

.PHONY: bench
bench: $(READY) ## Measure, on this machine
	@exec $(BIN)/python -m tests.benchmarks $(ARGS)

.PHONY: bench-gateway
bench-gateway: $(READY) ## Measure the gateway beside nginx and nothing (ARGS=--quick)
	@exec $(BIN)/python -m tests.benchmarks.gateway $(ARGS)

.PHONY: bench-admission
bench-admission: $(READY) ## Measure what one worker admits, beside bare calls
	@exec $(BIN)/python -m tests.benchmarks.admission $(ARGS)

.PHONY: bench-ingest
bench-ingest: $(READY) ## Measure usage into PostgreSQL beside 50 million events (ARGS=--quick)
	@exec $(BIN)/python -m tests.benchmarks.ingest $(ARGS)

.PHONY: bench-billing
bench-billing: $(READY) ## Measure prices, and what closing a month takes (ARGS=--quick)
	@exec $(BIN)/python -m tests.benchmarks.billing $(ARGS)

.PHONY: lint
lint: $(READY) ## Check style, types and who imports whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy platform/meterplane platform/stripe_sandbox billing tenants manage.py
	$(BIN)/lint-imports --no-logo
	@echo 'lint: clean'

# Compiled once here, in nine seconds of two cores, a Django process starts in 0.8 s instead of 2.4,
# and a stack starts five of them at once. Nothing happens while the lock file and the project file are older than the last sync.
$(READY): uv.lock pyproject.toml | $(BIN)/uv
	@echo 'Installing the packages of uv.lock ...'
	@$(BIN)/uv sync --locked --quiet --compile-bytecode --python $(BIN)/python || { \
	  echo 'Packages could not be installed as locked. If pyproject.toml was changed, run:' \
	    '$(BIN)/uv lock' >&2; exit 1; }
	@touch $@

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo 'Meterplane needs Python 3.11 or newer; $(PYTHON) is' \
	    "$$($(PYTHON) --version 2>&1 || echo absent)." \
	    'Name another: make PYTHON=/path/to/python3.12' >&2; exit 1; }
	@[ "$$(uname -sm)" = 'Linux x86_64' ] || { \
	  echo "The embedded servers exist for Linux on x86-64; this is $$(uname -sm)." \
	    'Point DATABASE_URL, REDIS_URL, ADMISSION_REDIS_URL' \
	    'and TRITON_URLS at servers of your own.' >&2; exit 1; }
	@echo 'Making $(VENV) ...'
	@$(PYTHON) -m venv $(VENV) || { \
	  echo 'This Python cannot make virtual environments (Debian, Ubuntu:' \
	    'apt install python3-venv).' >&2; rm -rf $(VENV); exit 1; }
	@$(BIN)/python -m pip install --quiet uv || { \
	  echo 'uv could not be installed with pip; is a package index reachable?' >&2; exit 1; }
