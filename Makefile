# make demo   sets up .venv and colourises a small archive made of installed sample photographs
# make pipeline   sets up .venv and .venv-tfx and runs the training pipeline in miniature
# make test   sets up what the tests need and runs them
# make lock   resolves the three locks anew from setup.py

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
TFX := .venv-tfx/bin
UV := uv==0.13.9
PARALLEL := -n auto --maxprocesses 4 --dist loadfile

.PHONY: demo pipeline test lint bench lock clean

demo: .venv/demo
	$(BIN)/python -m pipeline.demo

# The serving gate runs the batch job in .venv, the worker's environment.
pipeline: .venv/demo .venv-tfx/ready
	$(TFX)/python -m tfx_pipeline.demo --worker_python $(BIN)/python

test: .venv/test .venv-tfx/ready
	$(BIN)/python -m pytest $(PARALLEL)
	$(TFX)/python -m pytest $(PARALLEL) tests/tfx_pipeline

lint: .venv/test
	$(BIN)/ruff check
	$(BIN)/ruff format --check

bench: .venv/test
	$(BIN)/python -m tests.benchmarks.host_cost
	$(BIN)/python -m tests.benchmarks.hint_cost
	$(BIN)/python -m tests.benchmarks.job_cost
	$(BIN)/python -m tests.benchmarks.memory
	$(BIN)/python -m tests.benchmarks.resume_cost
	$(BIN)/python -m tests.benchmarks.lab_records

lock: .venv/demo
	$(BIN)/uv pip compile -q setup.py --extra demo --no-header --no-annotate -o requirements.lock
	$(BIN)/uv pip compile -q setup.py --extra demo --extra test -c requirements.lock --no-header --no-annotate \
		-o requirements-test.lock
	echo "tensorflow-cpu; sys_platform == 'never'" > .venv/override # TFX wants `tensorflow`, the same in other words
	$(BIN)/uv pip compile -q setup.py --extra tfx --extra test -c requirements-test.lock --override .venv/override \
		--no-header --no-annotate -o requirements-tfx.lock

clean:
	rm -rf .venv .venv-tfx scratch

# The later lock holds everything of the earlier one.
.venv/demo: requirements.lock
.venv/test: requirements-test.lock
.venv/%: setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
		{ echo "Python 3.11 is needed: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip --disable-pip-version-check install -q $(UV)
	$(BIN)/uv pip install -q --compile-bytecode $(foreach lock,$(filter %.lock,$^),-r $(lock))
	$(BIN)/uv pip install -q --no-deps --no-build-isolation -e .
	@touch $@

.venv-tfx/ready: requirements-tfx.lock .venv/demo
	test -x $(TFX)/python || $(PYTHON) -m venv .venv-tfx
	$(BIN)/uv pip install -q --compile-bytecode --python $(TFX)/python -r requirements-tfx.lock
	$(BIN)/uv pip install -q --no-deps --no-build-isolation --python $(TFX)/python -e .
	@touch $@
