# make demo   train, prune, quantise, export, verify and benchmark a model on real data
# make test   lint, types and all tests
# Both make .venv and install what they need first; a second call finds it there.

PYTHON ?= python3
TORCH ?= torch==2.13.0
BIN := .venv/bin
RUN := runs/vowels-gru
TRAIN := $(BIN)/edgernn train --data vowels --cell gru --hidden 32 --noise 0.5

.PHONY: demo test check bench clean
.DELETE_ON_ERROR:

demo: .venv/installed
	$(TRAIN) --qat none -o $(RUN)-float
	$(TRAIN) --qat w8a8 -o $(RUN)
	$(TRAIN) --qat w8a8 --sparsity 0.75 --block unit -o $(RUN)-sparse
	$(BIN)/edgernn export $(RUN)-sparse/model.ernn --format tflite,onnx --form sequence,step
	$(BIN)/edgernn verify $(RUN)-sparse/model.ernn
	$(BIN)/edgernn benchmark $(RUN)-sparse/model.ernn

test: check
	$(BIN)/python -m pytest -n 2 -q

check: .venv/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: .venv/installed
	$(BIN)/python -m tests.benchmarks.kernel

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -qq --upgrade "pip>=25.1"
	$(BIN)/python -m pip install -qq "$(TORCH)"
	$(BIN)/python -m pip install -qq --group dev --editable ".[train,export,run]"
	touch $@

clean:
	rm -rf .venv build dist runs *.egg-info
