# ragkube: the two commands are `make quickstart` and `make test`; `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PORT ?= 8080
DATA ?= .ragkube
DOCUMENTS ?=
FILE ?= manifests/samples/quickstart.yaml
PYTEST_ARGS ?=
CLUSTER := $(PYTHON) hack/cluster/cluster.py
LOCK := UV_CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes

.PHONY: help quickstart test setup lint fix typecheck lock generate capabilities bench soak cluster cluster-down demo clean

help:  ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

quickstart: $(VENV)/.api  ## answer questions about our docs on this machine (PORT= DOCUMENTS=DIR DATA=DIR)
	@exec $(BIN)/ragkube run $(FILE) --port $(PORT) --data $(DATA) $(if $(DOCUMENTS),--documents $(DOCUMENTS))

test: setup lint  ## everything: checks, unit, contract, component and cluster tests
	$(BIN)/python hack/suite.py $(PYTEST_ARGS)

setup: $(VENV)/.dev

lint: $(VENV)/.dev  ## formatting, lint, types, layers, generated files
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(MAKE) --no-print-directory typecheck
	PYTHONPATH=api:operator $(BIN)/lint-imports --no-cache
	$(BIN)/python hack/generate.py --check
	$(BIN)/python hack/capabilities.py --check

typecheck: $(VENV)/.dev
	$(BIN)/mypy api/ragkube_api operator/ragkube_operator hack tests

fix: $(VENV)/.dev  ## format, mend what can be mended, write generated files
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/python hack/generate.py
	$(BIN)/python hack/capabilities.py --write

generate: $(VENV)/.dev  ## write the CRD, its reference and the golden files
	$(BIN)/python hack/generate.py

capabilities: $(VENV)/.dev  ## what ragkube does, with the tests that prove it and what is missing
	@$(BIN)/python hack/capabilities.py

bench: $(VENV)/.dev  ## retrieval quality, ingestion, latency, operator figures
	PYTHONPATH=hack $(BIN)/python -m bench $(BENCH_ARGS)

soak: $(VENV)/.dev  ## long random runs of the never-stale promise and of the Redis Cluster planner
	RAGKUBE_SOAK=1 $(BIN)/pytest -m soak $(PYTEST_ARGS)

cluster: $(VENV)/.dev  ## a Kubernetes of your own with images loaded, for development
	$(CLUSTER) up
	$(CLUSTER) images

cluster-down:  ## end it; nothing is left
	$(CLUSTER) down

demo: $(VENV)/.dev  ## install the operator on that cluster and answer questions about real proposals
	$(BIN)/python hack/demo.py

lock: $(VENV)/.uv  ## compile requirements/*.txt
	$(LOCK) --extra api pyproject.toml -o requirements/api.txt
	$(LOCK) --extra operator pyproject.toml -o requirements/operator.txt
	$(LOCK) --extra api --extra operator --extra dev pyproject.toml -o requirements/dev.txt

clean:  ## remove the virtual environment and caches of this checkout
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist

$(VENV)/.uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "ragkube needs Python 3.11 or newer (PYTHON=python3.x)"; exit 1; }
	@echo "setting up $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@touch $@

$(VENV)/.api: $(VENV)/.uv requirements/api.txt pyproject.toml
	@test -e $(VENV)/.dev || $(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements/api.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.uv requirements/dev.txt pyproject.toml
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements/dev.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@ $(VENV)/.api
