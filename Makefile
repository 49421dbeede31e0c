# Two commands: `make run` (from nothing to a talking face) and `make test`. Both need Python 3.11 and a package index.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup run test check format papers prove hostile faults faults-train faults-serve fuzz bench bench-scale bench-train bench-serve bench-mark schedule nodes clock

PYTHON ?= python3.11
BIN := .venv/bin
STAMP := .venv/.complete
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq --no-input
# one thread per process: workers are as many as cores. No one is told that this ran.
QUIET := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 DVC_NO_ANALYTICS=1 DO_NOT_TRACK=1

help:
	@echo "make run     environment, demo corpus, dataset, training, bundle, talking face; run again: only what changed"
	@echo "make test    environment, then all tests"
	@echo "make check   lint, types, architecture"
	@echo "make prove SYSTEM=see_the_speaker [TRAIN=manifest TEST=manifest]   train at tiny, and hold each stage to its bar:"
	@echo "             on these people, else on the corpus that VOXFACE_CORPUS names, else on the demo corpus"
	@echo "campaigns    each prints a line per row with its figure and its target, and fails where one is missed:"
	@echo "             make hostile (bad input) | faults (kills, full disks, damage) | fuzz | nodes (a cluster's shards)"
	@echo "             make faults-train (training killed, damaged, poisoned)"
	@echo "             make faults-serve (the service: replicas and all of it killed, overload, slow senders, bundles, signers, clocks)"
	@echo "             make clock (sound against pictures, for every rate and container)"
	@echo "             make bench (ingestion against its limit) | bench-scale (50 to 5000 clips)"
	@echo "             make bench-train (the loader against its limit, a step against a bare loop) | bench-serve (the service)"
	@echo "             make bench-mark (what the invisible mark survives, false positives) | schedule (runs by Prefect's clock)"
	@echo "make setup   only the environment, in .venv, with the command .venv/bin/voxface"

setup: $(STAMP)

# pip check is not asked: opencv-contrib-python-headless stands in for mediapipe's opencv-contrib-python
$(STAMP): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is missing: install Python 3.11, or name it: make PYTHON=..."; exit 2; }
	@echo "setup: making .venv (about three minutes the first time)"
	@$(PYTHON) -m venv .venv
	@echo "setup: packages of requirements.lock"
	@$(PIP) install --no-deps --prefer-binary -r requirements.lock
	@echo "setup: torch"
	@$(PIP) install torch==2.13.0
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $(STAMP)

run: setup
	@$(BIN)/voxface doctor --quiet
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(QUIET) $(BIN)/dvc repro evaluate generate
	@$(BIN)/voxface runs --made

test: setup
	@$(QUIET) $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=30 --durations-min=10

check: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(QUIET) $(BIN)/python -m pytest -q tests/test_architecture.py

format: setup
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

papers: setup
	@$(BIN)/python docs/anchors.py

# campaigns: each its own command, none of them part of the tests
CAMPAIGN = PYTHONPATH="$(CURDIR):$(CURDIR)/tests" $(QUIET) $(BIN)/python

prove: setup
	@$(CAMPAIGN) tests/bars/campaign.py $(or $(SYSTEM),see_the_speaker) $(and $(TRAIN),--train "$(TRAIN)") $(and $(TEST),--test "$(TEST)")

hostile: setup
	@$(CAMPAIGN) tests/hostile/campaign.py

faults: setup
	@$(CAMPAIGN) tests/faults/campaign.py

faults-train: setup
	@$(CAMPAIGN) tests/faults_train/campaign.py

faults-serve: setup
	@$(CAMPAIGN) tests/outages/campaign.py

fuzz: setup
	@$(CAMPAIGN) tests/fuzz/campaign.py

nodes: setup
	@$(CAMPAIGN) tests/nodes/campaign.py

clock: setup
	@$(CAMPAIGN) tests/clock/campaign.py

bench: setup
	@$(CAMPAIGN) benchmarks/ingest.py

bench-scale: setup
	@$(CAMPAIGN) benchmarks/scale.py

bench-train: setup
	@$(CAMPAIGN) benchmarks/train.py

bench-serve: setup
	@$(CAMPAIGN) benchmarks/serve.py

bench-mark: setup
	@$(CAMPAIGN) benchmarks/watermark.py

schedule: setup
	@$(CAMPAIGN) tests/schedule/campaign.py
