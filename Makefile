# One-line recipes; what they do is in the programs they call. `make help` lists them.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(shell command -v uv 2>/dev/null || echo .uv/bin/uv)
MEMBERS := crds operator generator devcluster
SOURCES := version.py $(MEMBERS) charts gitops tests benchmarks
NAME ?= dev
SEEDS ?= 1 2 3
TEST_TOOLS := helm actionlint kueue versitygw
export DEVCLUSTER_CACHE ?= $(HOME)/.cache/devcluster
# Compiled modules are kept, because tests and demos start many processes.
export PYTHONDONTWRITEBYTECODE :=

COMPILE := $(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url --custom-compile-command 'make lock' \
  --no-emit-package diffugen-api
AS_LOCKED := --no-annotate --constraints requirements.lock --python-version 3.11

.DEFAULT_GOAL := help
.PHONY: help venv demo images e2e test test-faults fuzz verify docs docs-images report-picture generate format cluster-binaries cluster-up cluster-down bench-guidance bench-inversion bench-labels bench-plan \
  bench-publish bench-report bench-scale bench-throughput lock clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  \033[36m%-18s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: venv ## A throwaway Kubernetes, the operator, and examples/shapes.yaml from kubectl apply to a dataset
	$(BIN)/devcluster demo examples/shapes.yaml

test: venv ## Run every test (builds the throwaway Kubernetes first, once)
	$(BIN)/devcluster binaries $(TEST_TOOLS:%=--tool %)
	$(BIN)/pytest --numprocesses 4 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

test-faults: venv ## Run the fault tests once for each seed (SEEDS="1 2 3"), until the first failure
	$(BIN)/devcluster binaries
	@set -e; for seed in $(SEEDS); do \
	  echo "FAULT_SEED=$$seed"; \
	  FAULT_SEED=$$seed $(BIN)/pytest --numprocesses 2 --dist loadfile --exitfirst tests/cluster/faults $(PYTEST_ARGS); \
	done

fuzz: venv ## Try odd manifests and damaged files (FUZZ_SECONDS=600; FUZZ_SEED=N is the first case)
	FUZZ_SECONDS=$${FUZZ_SECONDS:-600} FUZZ_SEED=$${FUZZ_SEED:-$$(date +%s)} $(BIN)/pytest tests/generator/fuzz $(PYTEST_ARGS)

verify: venv ## ruff, mypy --strict, import-linter, and whether what is generated is up to date
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python crds/render.py --check
	$(BIN)/python charts/render.py --check
	$(BIN)/python gitops/render.py --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --site-dir .mkdocs-site

docs: venv ## Build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --site-dir site

# The browser stops at the end of its virtual time, when the page has painted what it shows.
report-picture: venv ## Draw the README's image of the report anew: the report of examples/shapes.yaml (needs chromium)
	mkdir -p out/report
	$(BIN)/diffugen run examples/shapes.yaml --store $(CURDIR)/out/report --json > out/report/run.json
	chromium --headless --no-sandbox --hide-scrollbars --window-size=1440,1010 --virtual-time-budget=10000 --screenshot=docs/report.png \
	  "file://$$($(BIN)/python -c 'import json; print(json.load(open("out/report/run.json"))["report"])')#layers=image,masks,names&words=and"

images: ## Build the three images with docker or buildah (images/build.sh has the settings)
	images/build.sh

e2e: venv ## Images, chart and datasets on a real kubelet, as root (BASE=..., TORCH_INDEX=... for smaller images)
	E2E=1 $(BIN)/pytest --exitfirst tests/e2e $(PYTEST_ARGS)

generate: venv ## Render the CRD and the API reference from the models, and from the chart its copies and deploy/
	$(BIN)/python crds/render.py
	$(BIN)/python charts/render.py
	$(BIN)/python gitops/render.py

format: venv ## Format and fix what can be fixed
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

cluster-binaries: venv ## Build etcd, Kubernetes and MinIO into the cache (once; minutes)
	$(BIN)/devcluster binaries

cluster-up: venv ## Start a throwaway Kubernetes and MinIO (NAME=dev) and print its kubeconfig
	$(BIN)/devcluster up --name $(NAME)

cluster-down: venv ## Stop it and leave nothing behind
	$(BIN)/devcluster down --name $(NAME)

docs-images: report-picture ## Draw the images of the README and the guide anew (some minutes on two cores)
	$(BIN)/python -m benchmarks.docs_images

bench-plan: venv ## Measure a million-sample plan
	$(BIN)/python benchmarks/plan.py

bench-guidance: venv ## Measure which guidance scale makes the best training data (about half an hour of one core)
	$(BIN)/python -m benchmarks.guidance

bench-inversion: venv ## Measure what teaching a word costs and is worth (about ten minutes on two cores)
	$(BIN)/python -m benchmarks.inversion

bench-labels: venv ## Measure what labels are worth (about twenty minutes on two cores)
	$(BIN)/python -m benchmarks.labels

bench-throughput: venv ## Measure images a second against diffusers' pipeline and DAAM-style labels (CPU: some ten minutes)
	$(BIN)/python -m benchmarks.throughput

bench-publish: venv ## Measure publishing up to a million samples, and datumaro's COCO export (about half an hour)
	$(BIN)/python -m benchmarks.publish

bench-report: venv ## Measure the report with 10,000 and 100,000 samples in a browser (needs chromium)
	$(BIN)/python -m benchmarks.report

bench-scale: venv ## Measure the operator with 1,000 datasets (about six minutes)
	$(BIN)/devcluster binaries
	$(BIN)/python -m benchmarks.scale

venv: $(VENV)/.ready ## Make .venv with everything in it (the console scripts too)

# The interpreter is whatever of CPython 3.11 to 3.13 is found; uv itself comes from pip where it is not installed.
$(VENV)/.ready: requirements.lock tests/peft.lock pyproject.toml version.py $(MEMBERS:%=%/pyproject.toml) | $(UV)
	$(UV) venv --quiet --allow-existing --no-python-downloads --python '>=3.11,<3.14' $(VENV)
	$(UV) pip sync --quiet --python $(BIN)/python --require-hashes requirements.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --require-hashes --target $(VENV)/peft -r tests/peft.lock
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation $(MEMBERS:%=-e ./%)
	@touch $@

.uv/bin/uv:
	@echo "No uv on the PATH: installing it into .uv"
	$(PYTHON) -m venv .uv && .uv/bin/pip install --quiet --disable-pip-version-check 'uv>=0.8'

lock: | $(UV) ## Pin every dependency anew into requirements.lock and the images' locks
	$(COMPILE) --all-extras --group dev --upgrade --no-emit-package devcluster --no-emit-package diffugen-operator \
	  --no-emit-package diffugen -o requirements.lock pyproject.toml
	$(COMPILE) $(AS_LOCKED) --no-deps tests/peft.in -o tests/peft.lock
	$(COMPILE) $(AS_LOCKED) images/build.in -o images/build.lock
	$(COMPILE) $(AS_LOCKED) operator/pyproject.toml -o images/operator/requirements.lock
	$(COMPILE) $(AS_LOCKED) generator/pyproject.toml --extra formats -o images/generator/light.lock
	$(COMPILE) --no-annotate --python-version 3.11 --allow-unsafe --constraints images/generator/light.lock images/opencv.in -o images/opencv.lock
	$(COMPILE) $(AS_LOCKED) generator/pyproject.toml --extra models --extra formats -o images/generator/models.lock
	$(COMPILE) $(AS_LOCKED) generator/pyproject.toml --extra models --extra formats --extra yolo -o images/generator/models-yolo.lock

clean: ## Remove .venv, .uv and what tools left behind
	rm -rf $(VENV) .uv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .mkdocs-site site out
