# make demo   train, prune, quantise, export, verify, benchmark and simulate a model on real data
# make test   lint, types and all tests; installs cross compilers and QEMU where they are missing (`make tools`)
# make test-arm   what pip installs on a Raspberry Pi, all commands there, and every engine on its emulated cores
# make soak   10,000 models through every engine, 100,000 damaged files, 300 kills in training and export (half an hour)
# All make .venv and install what they need first; a second call finds it there.

PYTHON ?= python3
TORCH ?= torch==2.13.0
BIN := .venv/bin
RUN := runs/vowels-gru
TRAIN := $(BIN)/edgernn train --data vowels --cell gru --hidden 32 --noise 0.5

# tflite-runtime 2.14 has wheels for Python 3.10 and 3.11 alone
OLDER := $(shell for p in $(PYTHON) python3.11 python3.10; do \
  $$p -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 10), (3, 11)))' 2>/dev/null && echo $$p && break; done)

# The compilers and emulators of firmware. Debian's packages, installed by `make tools` where they are missing
TOOLS := arm-none-eabi-gcc riscv64-unknown-elf-gcc qemu-system-arm qemu-system-riscv32 \
  aarch64-linux-gnu-gcc arm-linux-gnueabihf-gcc qemu-aarch64
PACKAGES := gcc-arm-none-eabi gcc-riscv64-unknown-elf qemu-system-arm qemu-system-misc gcc-aarch64-linux-gnu \
  gcc-arm-linux-gnueabihf qemu-user

.PHONY: demo test test-arm soak tools check bench clean
.DELETE_ON_ERROR:

demo: .venv/installed
	$(TRAIN) --qat none -o $(RUN)-float
	$(TRAIN) --qat w8a8 -o $(RUN)
	$(TRAIN) --qat w8a8 --sparsity 0.75 --block unit -o $(RUN)-sparse
	$(BIN)/edgernn export $(RUN)-sparse/model.ernn --format tflite,onnx,c --form sequence,step --target cortex-m4
	$(BIN)/edgernn verify $(RUN)-sparse/model.ernn
	$(BIN)/edgernn benchmark $(RUN)-sparse/model.ernn
	$(BIN)/edgernn simulate $(RUN)-sparse/model.ernn --core cortex-m4 --board nucleo-l4r5zi

test: check tools .venv/tflite-runtime/installed
	$(BIN)/python -m pytest -n 2 -q

test-arm: tools .venv/installed
	$(BIN)/python -m tests.arm.install
	$(BIN)/python -m tests.arm.user
	$(BIN)/python -m tests.arm

soak: tools .venv/installed .venv/tflite-runtime/installed
	$(BIN)/python -m tests.soak --models 10000 $(if $(TABLE),--write $(TABLE))
	$(BIN)/python -m tests.soak_files --files 100000
	$(BIN)/python -m tests.soak_kills --kills 300

tools:
	@for tool in $(TOOLS); do command -v $$tool >/dev/null || missing=yes; done; test -z "$$missing" || \
	  { command -v apt-get >/dev/null && as_root=$$(test "$$(id -u)" = 0 || echo sudo) && $$as_root apt-get update -qq && \
	    $$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(PACKAGES) >/dev/null; } || \
	  { echo "install $(TOOLS), for instance by: apt install $(PACKAGES)" >&2; exit 1; }

check: .venv/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: tools .venv/installed
	$(BIN)/python -m tests.benchmarks.inference
	$(BIN)/python -m tests.benchmarks.qat
	$(BIN)/python -m tests.benchmarks.firmware
	$(BIN)/python -m tests.benchmarks.validation

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -qq --upgrade "pip>=25.1"
	$(BIN)/python -m pip install -qq "$(TORCH)"
	$(BIN)/python -m pip install -qq --group dev --editable ".[train,export,run]"
	touch $@

.venv/tflite-runtime/installed: .venv/installed
	@test -n "$(OLDER)" || { echo "tflite-runtime needs Python 3.10 or 3.11: install python3.11 beside $(PYTHON)" >&2; exit 1; }
	$(OLDER) -m venv .venv/tflite-runtime
	.venv/tflite-runtime/bin/python -m pip install -qq tflite-runtime==2.14.0 "numpy<2"
	touch $@

clean:
	rm -rf .venv build dist runs *.egg-info
