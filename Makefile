# The commands of this repository. Nothing needs to be typed before any of them: each sets up what it needs.
SHELL := /bin/bash
PY := .venv/bin/python
.DEFAULT_GOAL := help
.PHONY: help setup demo demo-stop test lint unit bench lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what is missing: distribution packages, .venv, webhook payloads
	@PYTHON="$(PYTHON)" tools/setup.sh

demo: setup ## Watch releases under load, also bad ones that return, repairs, and the audit log verify
	@$(PY) -m tools.demo $(ARGS)

demo-stop: ## Remove everything the demo started
	@if [ -x $(PY) ]; then $(PY) -m tools.demo stop; else echo "nothing to stop: no demo was ever started here"; fi

test: setup ## Lint, then all tests, against a real engine
	@$(PY) -m tools.phases lint test

lint: setup ## Format, style, direction of imports, types
	@$(PY) -m tools.phases lint

unit: setup ## The fast tests only, without an engine
	@$(PY) -m tools.phases unit

bench: setup ## Measure every figure beside its goal; one of them: make bench ARGS="NAME --json"
	@$(PY) -m bench $(ARGS)

lock: setup ## Write the hash-locked requirements anew; newest versions: make lock UPGRADE=1
	@UPGRADE="$(UPGRADE)" tools/lock.sh

clean: demo-stop ## Remove what the commands above made in this folder
	@rm -rf .venv .cache .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage* \
	  tests/node_modules reconciler.egg-info build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
