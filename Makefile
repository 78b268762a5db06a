# One-line recipes; what they do is in the programs they call. `make help` lists them.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
MEMBERS := crds operator generator devcluster

.DEFAULT_GOAL := help
.PHONY: help venv lock

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  \033[36m%-18s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(VENV)/.ready ## Make .venv with everything in it (the console scripts too)

$(VENV)/.ready: requirements.lock pyproject.toml $(MEMBERS:%=%/pyproject.toml) | $(UV)
	$(UV) venv --quiet --allow-existing --python '>=3.11,<3.14' $(VENV)
	$(UV) pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation $(MEMBERS:%=-e ./%)
	@touch $@

.uv/bin/uv:
	$(PYTHON) -m venv .uv && .uv/bin/pip install --quiet --disable-pip-version-check 'uv>=0.8'

lock: | $(UV) ## Pin every dependency anew into requirements.lock
	$(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url --all-extras --group dev --upgrade \
	  --no-emit-package devcluster --no-emit-package diffugen-api --no-emit-package diffugen-operator --no-emit-package diffugen-generator \
	  --custom-compile-command 'make lock' -o requirements.lock pyproject.toml
