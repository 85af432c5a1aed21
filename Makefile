# Every target works from a bare clone: the environment is created on first use. Needs python3 >= 3.11 and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo up test test-all chaos bench check format schemas lock clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

demo: $(STAMP) ## Run the demo: real conversations through the whole service, then a table of the outcomes
	@$(BIN)/grok-insights demo $(ARGS)

up: $(STAMP) ## Run the local stack in the foreground; Ctrl-C stops it
	@$(BIN)/grok-insights up $(ARGS)

# Most of these tests wait for other processes, so more of them run at once than there are cores.
JOBS ?= 4
REST := kafka or docker or slow

test: $(STAMP) ## Run the quick tests, without Java or Docker: unit tests, contracts, the main promises end to end on Tansu
	@$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "not ($(REST))" $(ARGS)

# Servers of their own keep these tests busier than the quick ones. Chaos comes last and alone: its judge takes the
# slowness of a busy machine for a fault. With ARGS there is one run, for what they select.
CHAOS := tests/chaos/test_chaos.py
test-all: JOBS = 2
test-all: $(STAMP) ## Run the other tests of CI: Apache Kafka, outages, crash points, full models, mutants, chaos, compose
	@$(BIN)/python -m pytest -n $(JOBS) --dist worksteal -m "$(REST)" $(or $(ARGS),--ignore=$(CHAOS))
	@$(if $(ARGS),,$(BIN)/python -m pytest $(CHAOS))

ROUNDS ?= 3

bench: $(STAMP) ## Compare the service with other ways to do the same work; ARGS="--help" lists the scenarios
	@$(BIN)/python -m tests.bench $(ARGS)

chaos: $(STAMP) ## Run ROUNDS=n rounds of random faults against the whole service and check every conversation
	@$(BIN)/python -m tests.chaos --rounds $(ROUNDS) $(ARGS)

check: $(STAMP) ## Lint, types, import layers, generated files, banned words
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/grok-insights schemas --check
	@$(BIN)/python -m pytest -q tests/unit/test_words.py

format: $(STAMP) ## Format the code and regenerate generated files
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .
	@$(BIN)/grok-insights schemas

LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-header --no-annotate

lock: $(STAMP) ## Recompile the lock files from pyproject.toml
	@$(BIN)/python -m pip install --quiet uv
	@$(LOCK) --all-extras pyproject.toml --output-file requirements.lock
	@$(LOCK) --constraints requirements.lock pyproject.toml --output-file requirements-runtime.lock
	@sed -n 's/^requires = \["\(.*\)"\]/\1/p' pyproject.toml | \
		$(LOCK) --constraints requirements.lock - --output-file infra/docker/requirements-build.lock

clean: ## Remove the environment and the data of the local stack and workers; stop them first
	rm -rf $(VENV) .grok-insights .grok-insights-[0-9]*

$(STAMP): requirements.lock pyproject.toml infra/setup.sh
	@PYTHON="$(PYTHON)" VENV="$(VENV)" sh infra/setup.sh
	@touch $(STAMP)
