# Two commands are all a newcomer needs: make train, make test.
PYTHON ?= python3
VENV   ?= .venv
STEPS  ?= 9000
CUDA   ?= 12
NOW    := $(shell date +%Y%m%d-%H%M%S)
RUN    ?= runs/mlp-batchnorm-$(NOW)

BIN  = $(VENV)/bin
PIP  = $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: train test test-slow test-gpu lint format bench bench-gpu clean

train: $(VENV)/installed
	$(BIN)/python examples/train_mlp_gan.py --preset mlp-batchnorm --batch-size 64 \
	    --steps $(STEPS) --data auto --out $(RUN)
	@echo "Look at $(RUN)/samples.gif, $(RUN)/losses.png and the grids in $(RUN)/samples"

test: $(VENV)/installed-test
	$(BIN)/python -m pytest -n auto

test-slow: $(VENV)/installed-test
	$(BIN)/python -m pytest -m slow

# On an NVIDIA GPU; CUDA=13 where nvidia-smi shows a CUDA version of 13 or more.
test-gpu: $(VENV)/installed-test,cuda$(CUDA)
	$(BIN)/python -m pytest --backend cupy

lint: $(VENV)/installed-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/installed-lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/installed-bench
	$(BIN)/python benchmarks/mlp_step.py
	$(BIN)/python benchmarks/dcgan_step.py --native

bench-gpu: $(VENV)/installed-bench,cuda$(CUDA)
	$(BIN)/python benchmarks/gpu_step.py
	$(BIN)/python benchmarks/gpu_timeline.py
	$(BIN)/python benchmarks/crossover.py

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "tinygan needs Python 3.10 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(PIP) -e .
	@touch $@

$(VENV)/installed-%: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(PIP) -e ".[$*]"
	@touch $@
