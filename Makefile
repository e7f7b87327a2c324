# `make` alone lists what there is. Every target installs what it needs.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON := .venv/bin/python
# Tests run in as many processes as there are cores; one more was measured to be no faster.
WORKERS ?= auto
# Tests start our programs hundreds of times: none of them should compile its modules again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-9s %s\n", $$1, $$2}'

.PHONY: demo
demo: ## track real conversations with real files, fetch them back, open every link
	@tools/setup.sh server
	@$(PYTHON) examples/demo.py

.PHONY: serve
serve: ## run the server on http://127.0.0.1:8000, data in ./agentsight-data
	@tools/setup.sh server
	@.venv/bin/agentsight serve

.PHONY: test
test: ## run all tests, on SQLite and on a real PostgreSQL
	@tools/setup.sh dev
	@tools/test-programs.sh
	@$(PYTHON) -m pytest -n $(WORKERS) --dist loadgroup tests

.PHONY: quick
quick: ## run the quick part of the tests, on SQLite and a directory (under two minutes)
	@tools/setup.sh dev
	@tools/test-programs.sh
	@$(PYTHON) -m pytest -n $(WORKERS) --dist loadgroup -m 'not slow' tests

.PHONY: check
check: ## lint, format, types, import contracts
	@tools/setup.sh dev
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/basedpyright
	@.venv/bin/lint-imports --no-logo
	@$(PYTHON) -m pytest -q tests/architecture

.PHONY: format
format: ## format the code
	@tools/setup.sh dev
	@.venv/bin/ruff check --fix .
	@.venv/bin/ruff format .

.PHONY: bench
bench: ## run the benchmarks and print ratios
	@tools/setup.sh dev
	@tools/test-programs.sh
	@$(PYTHON) -m benchmarks

.PHONY: soak
soak: ## run the long tests
	@tools/setup.sh dev
	@tools/test-programs.sh
	@AGENTSIGHT_TEST_SOAK=1 $(PYTHON) -m pytest -n $(WORKERS) --dist loadgroup tests

.PHONY: docs
docs: ## write the generated pages of docs/ anew
	@tools/setup.sh dev
	@$(PYTHON) -m tools.generate_docs
