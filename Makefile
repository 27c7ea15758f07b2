# `make quickstart` runs the main job on real input, `make test` the tests. Both set up .venv themselves.
PYTHON ?= python3
BIN := .venv/bin
export OMP_NUM_THREADS := 1

.PHONY: quickstart cluster-demo test aot lint types format clean

quickstart: .venv/.installed  ## prepare, train, lose a worker, carry on, evaluate, sample; CORPUS=path for your own text
	$(BIN)/python launch.py quickstart $(if $(CORPUS),--corpus "$(CORPUS)")

cluster-demo: .venv/.installed  ## a Ray cluster of two nodes on this machine that loses one while a job trains on it
	$(BIN)/python launch.py cluster demo

test: .venv/.installed-test  ## the tests, two at a time; with CI=true the slow ones after them, one at a time
	@status=0; \
	$(BIN)/python -m pytest -m "not slow" --numprocesses 2 --dist worksteal $(ARGS) || status=$$?; \
	if [ "$(CI)" = true ]; then $(BIN)/python -m pytest -m slow $(ARGS) || status=$$?; fi; \
	exit $$status

aot: .venv/.installed  ## every kernel compiled for GPUs that are not here; ARGS="--only sm_90" for some
	$(BIN)/python -m kernels.aot $(ARGS)

lint: .venv/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.installed-test
	$(BIN)/mypy

format: .venv/.installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.venv/.installed: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "make: no $(PYTHON) here; install Python 3.11 or later, or say PYTHON=..."; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[trackers]"
	touch $@

.venv/.installed-test: .venv/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[test]"
	touch $@

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache
