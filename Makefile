# Everything that is done with a checkout. `make` alone prints the list.

PYTHONS := app gc_workers db tests scripts benchmarks
WORKERS ?= 2
BIN := .venv/bin

# Options for the program that is run: make serve ARGS=…, make test ARGS='-k referrers'.
ARGS ?=

# pyright comes as a package that fetches itself at its first run: into the checkout, and without a word.
export PYRIGHT_PYTHON_CACHE_DIR := $(CURDIR)/.deps/pyright
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1

.PHONY: help
help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: serve
serve: runtime ## set everything up and serve on http://127.0.0.1:5000, with the data in data/
	@exec $(BIN)/registry serve --local $(ARGS)

.PHONY: test
test: dev ## run every test; as root with apt-get, install the clients they use first (NO_APT=1: do not)
	@scripts/test-packages.sh
	@exec $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

.PHONY: test-all
test-all: dev ## as test, and search twelve times as long: more examples, a soak of two minutes, every crash point
	@scripts/test-packages.sh
	@TEST_EFFORT=12 exec $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

.PHONY: test-fast
test-fast: dev ## run the tests that use no client programs, and install nothing
	@exec $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal --ignore=tests/clients $(ARGS)

.PHONY: bench
bench: runtime ## measure the registry beside Debian's docker-registry; as root with apt-get, install that and wrk first
	@exec $(BIN)/python -m benchmarks $(ARGS)

.PHONY: bench-gc
bench-gc: runtime ## measure garbage collection, and what clients notice of it, beside docker-registry's
	@exec $(BIN)/python -m benchmarks.gc $(ARGS)

.PHONY: check
check: dev ## format, lint, types and import contracts, all at once
	@$(MAKE) --no-print-directory -j4 -k check-format check-lint check-types check-imports

# Each says something only if it fails, and then all at once: four of them talk at the same time.
quietly = @said=$$($(1) 2>&1) || { printf '%s\n' "$$said"; exit 1; }

.PHONY: check-format check-lint check-types check-imports
check-format:
	$(call quietly,$(BIN)/ruff format --check --output-format concise $(PYTHONS))
check-lint:
	$(call quietly,$(BIN)/ruff check --output-format concise $(PYTHONS))
check-types:
	$(call quietly,$(BIN)/python -m pyright)
check-imports:
	$(call quietly,$(BIN)/python -c 'from importlinter.cli import lint_imports_command as c; c()' --no-logo)

.PHONY: fmt
fmt: dev ## format, and mend what the linter can mend
	@$(BIN)/ruff check --quiet --fix --exit-zero $(PYTHONS)
	@$(BIN)/ruff format $(PYTHONS)

.PHONY: lock
lock: ## renew both lock files from pyproject.toml
	@scripts/lock.sh $(ARGS)

.PHONY: clean
clean: ## remove what make made, but not data/
	@rm -rf .venv .deps .pytest_cache .ruff_cache .hypothesis .import_linter_cache ./*.egg-info
	@find $(PYTHONS) -type d -name __pycache__ -prune -exec rm -rf {} +

.PHONY: runtime dev
runtime:
	@cmp -s requirements.lock .venv/requirements.lock && test -x $(BIN)/python || scripts/bootstrap.sh runtime
dev:
	@cmp -s requirements-dev.lock .venv/requirements-dev.lock && test -x $(BIN)/python || scripts/bootstrap.sh dev
