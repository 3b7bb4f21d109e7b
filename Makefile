# Two commands on a fresh machine: `make demo` and `make test`. They need Python 3.11 to 3.13 and a package index; no more.
# Kept to what GNU make 3.81 (macOS) and a POSIX sh understand.

SHELL = /bin/sh
.DEFAULT_GOAL = help
.PHONY: help docs venv compile demo test test-kafka simulation lint format types bench lock clean distclean

ARGS ?=
# Tests mostly wait, so they run in twice as many processes as there are cores; a few that ARGS names run in one.
# JOBS=0: always one process (for -s, --pdb).
JOBS ?= auto
PARALLEL = -n $(JOBS) --dist load --maxschedchunk 1
COMPILED = app/core/*.so app/stream/*.so app/learning/*.so
BIN = .venv/bin
READY = .venv/.ready

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' Makefile

demo: $(READY) ## replay real purchases through the whole engine, about a minute (ARGS="--duration 30 …")
	@$(BIN)/nudge demo $(ARGS)

test: $(READY) ## all tests that need no Apache Kafka (ARGS="-k panes …")
	@$(BIN)/python -m pytest -m "not kafka" $(PARALLEL) $(ARGS)

test-kafka: $(READY) ## the broker tests again, on Apache Kafka (needs Java 17+ and Maven)
	@$(BIN)/python -m tests.support.kafka --brokers 3 -- \
	  $(BIN)/python -m pytest -p tests.support.kafka_usage -m kafka $(PARALLEL) $(ARGS)

simulation: $(READY) ## 1,000 seeds of the pipeline with every fault, no Kafka, about a minute (ARGS="--seed 87")
	@$(BIN)/python -m tests.simulation $(ARGS)

lint: $(READY) ## ruff: rules and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: $(READY) ## ruff: mend what can be mended
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

types: $(READY) ## mypy --strict on our packages
	@$(BIN)/mypy

compile: $(READY) ## the modules that run once an event, compiled by mypyc (needs a C compiler; `make clean` goes back)
	@rm -f $(COMPILED)
	@NUDGE_COMPILE=1 $(BIN)/python setup.py --quiet build_ext --inplace
	@touch $(COMPILED) # setuptools gives copies the time of what it built before

bench: $(READY) ## the engine beside idiomatic Faust and the floor (after `make compile`, if it is to be fast)
	@$(BIN)/python -m benchmarks.engine $(ARGS)

docs: $(READY) ## the documentation site into build/site; a broken link fails (ARGS=serve shows it on 127.0.0.1:8000)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs $(if $(ARGS),$(ARGS),build --quiet)

lock: ## pin every dependency with hashes for all platforms (needs uv; ARGS=--upgrade for newer versions)
	@command -v uv >/dev/null || { echo "make lock needs uv: python3 -m pip install uv" >&2; exit 1; }
	uv pip compile pyproject.toml --quiet --extra dev --universal --python-version 3.11 --generate-hashes \
	  --no-annotate --custom-compile-command "make lock" --output-file requirements.lock $(ARGS)

venv: $(READY) ## the environment in .venv (the other targets make it themselves)

# Made once, and brought up to date when what it is made from changes. The stamp is written last: a half-made
# environment is finished by the next make.
$(READY): requirements.lock pyproject.toml
	@sh .ci/venv .venv
	@touch $(READY)

clean: ## remove caches and build output
	rm -f $(COMPILED)
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
	find . -name .venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## clean, and remove the environment
	rm -rf .venv
