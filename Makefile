# Two commands do everything, set-up included: `make demo` and `make test`.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test bench example classifier clean

demo: .venv/ready
	$(BIN)/shortcut train digits --run-dir runs/digits
	$(BIN)/shortcut evaluate runs/digits

test: .venv/ready-for-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyrefly check
	$(BIN)/pytest

# Speed against PyTorch and the machine's limit, on a CPU: docs/speed.md. For a GPU: docs/gpu.md.
bench: .venv/ready-for-bench
	$(BIN)/python -m benchmarks.speed

# Learns a flow of 2-D points without any of our training code.
example: .venv/ready
	$(BIN)/python examples/points.py

# Retrains the classifier whose weights come with the package: make classifier DATASET=glyphs.
classifier: DATASET ?= digits
classifier: .venv/ready
	$(BIN)/python -m benchmarks.classifier $(DATASET)

clean:
	rm -rf .venv

.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, but $(PYTHON) is " + sys.version.split()[0] + ": make PYTHON=python3.12, say.")'
	@echo "Setting up .venv (once; downloads about 300 MB) ..."
	$(PYTHON) -m venv .venv
	$(PIP) --editable .
	@touch $@

.venv/ready-for-tests: .venv/ready
	$(PIP) --editable '.[dev]'
	@touch $@

.venv/ready-for-bench: .venv/ready
	$(PIP) --editable '.[bench]'
	@touch $@
