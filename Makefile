PYTHON ?= python3
BIN = .venv/bin

# Tests start many processes, each of which would compile everything anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install demo test test-fast lint benchmark gpu
.DELETE_ON_ERROR:

install: .venv/installed

.venv/installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	# An oracle of the tests. It pins an old requests, of which it needs nothing.
	$(BIN)/pip install --quiet --constraint constraints.txt --no-deps torchattacks
	touch $@

demo: install
	$(BIN)/python scripts/demo.py --out runs/demo

benchmark: .venv/installed-bench
	$(BIN)/python scripts/benchmark.py --json runs/benchmark.json

.venv/installed-bench: .venv/installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[bench]'
	touch $@

# What needs CUDA: its tests, then the benchmark on the GPU.
gpu: .venv/installed-bench
	@if $(BIN)/python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then \
	    $(BIN)/python -m pytest -m cuda && $(BIN)/python scripts/benchmark.py --json runs/benchmark_gpu.json; \
	else echo 'No CUDA device here: nothing was checked.'; fi

test: lint
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

# Under two minutes on two cores: no processes of their own, no training, nothing slow.
test-fast: install
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal -m "not (process or training or slow)"

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
