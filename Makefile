# Two commands do everything, set-up included: `make demo` and `make test`.

PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
BIN := $(VENV)/bin
# A file of tests runs in one process, in an order that is always the same.
PYTEST := $(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS)

.PHONY: demo test test-3.13 test-lowest quick-tests bench example classifier clean

demo: $(VENV)/ready
	$(BIN)/shortcut train digits --run-dir runs/digits
	$(BIN)/shortcut evaluate runs/digits

test: $(VENV)/ready-for-tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyrefly check
	$(PYTEST)

# What is not marked slow, with Python 3.13 and its newer JAX: make test-3.13 PYTHON=python3.13.
test-3.13:
	$(MAKE) quick-tests VENV=.venv-3.13 CONSTRAINTS=constraints-3.13.txt

# The same with the oldest versions that pyproject.toml allows: make test-lowest PYTHON=python3.11.
test-lowest:
	$(MAKE) quick-tests VENV=.venv-lowest CONSTRAINTS=constraints-lowest.txt

quick-tests: $(VENV)/ready-for-tests
	$(PYTEST) -m 'not slow'

# Speed against PyTorch and the machine's limit, on a CPU: docs/speed.md. For a GPU: docs/gpu.md.
bench: $(VENV)/ready-for-bench
	$(BIN)/python -m benchmarks.speed

# Learns a flow of 2-D points without any of our training code.
example: $(VENV)/ready
	$(BIN)/python examples/points.py

# Retrains the classifier whose weights come with the package: make classifier DATASET=fashion.
classifier: DATASET ?= digits
classifier: $(VENV)/ready
	$(BIN)/python -m benchmarks.classifier $(DATASET)

clean:
	rm -rf .venv .venv-3.13 .venv-lowest

$(VENV)/ready: pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, but $(PYTHON) is " + sys.version.split()[0] + ": make PYTHON=python3.12, say.")'
	@echo "Setting up $(VENV) (once; downloads about 300 MB) ..."
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable .
	@touch $@

$(VENV)/ready-for-tests: $(VENV)/ready
	$(PIP) --editable '.[dev]'
	@touch $@

$(VENV)/ready-for-bench: $(VENV)/ready
	$(PIP) --editable '.[bench]'
	@touch $@
