PYTHON ?= python3
BIN := .venv/bin
TFX := .venv-tfx/bin
INFRA := .venv-infra/bin
UV := .venv-uv/bin/uv
GO := scratch/go
# Of TFX 1.16. TFX 1.21 needs Debian 13 or another system with glibc 2.39: TFX_LOCK=requirements-tfx121.lock.
TFX_LOCK ?= requirements-tfx.lock
COMPILE := $(UV) pip compile -q setup.py --no-header --no-annotate
PARALLEL := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

MANIFESTS = $(wildcard infra/k8s/*.yaml infra/k8s/*/*.yaml)

.PHONY: help demo pipeline flink test test-nights test-gcs test-prism test-flink test-images lint check-infra bench lock clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 18

demo: .venv/demo ## set up, and colourise a small archive of sample photographs
	$(BIN)/python -m pipeline.demo

# The serving gate runs the batch job in .venv, as a worker would.
pipeline: .venv/demo .venv-tfx/ready ## set up, and run the training pipeline in miniature
	$(TFX)/python -m tfx_pipeline.demo --worker_python $(BIN)/python

flink: .venv/demo ## run a Flink cluster on this machine until Ctrl-C, and show how to use it
	$(BIN)/python -m infra.flink.cluster run

test: .venv/test .venv-tfx/ready .venv-ocfl/ready ## set up, and run all tests
	$(BIN)/python -m pytest $(PARALLEL)
	$(TFX)/python -m pytest $(PARALLEL) tests/tfx_pipeline

test-nights: .venv/demo .venv-tfx/ready ## play three nights of training, gates and colouring (minutes)
	$(TFX)/python -m pytest tests/tfx_pipeline/nights.py

test-prism: .venv/test ## build Prism, a second runner, with Go (minutes), and test the job on it
	GOBIN=$(CURDIR)/$(GO) go install github.com/apache/beam/sdks/v2/go/cmd/prism@v2.73.0
	PRISM=$(CURDIR)/$(GO)/prism $(BIN)/python -m pytest tests/pipeline/batch/on_prism.py

test-gcs: .venv/test ## build a stricter emulator of Cloud Storage with Go, and test storage and the job on it
	GOBIN=$(CURDIR)/$(GO) go install github.com/fsouza/fake-gcs-server@v1.56.1
	FAKE_GCS_SERVER=$(CURDIR)/$(GO)/fake-gcs-server $(BIN)/python -m pytest $(PARALLEL) tests/pipeline/storage \
		$(addprefix tests/pipeline/batch/test_,buckets.py lease.py manners.py progress.py registry.py)

test-flink: .venv/test ## run the job on a Flink cluster, and kill its processes
	$(BIN)/python -m pytest tests/flink

test-images: .venv/test ## build images without Docker, as root, and run them
	$(BIN)/python -m pytest -s tests/infra/in_containers.py

lint: .venv/test ## check style, the map of imports, and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy

# Terraform and Go must be installed. `terraform validate` and `terraform test` are among the tests: tests/infra.
# python-hcl2 has an environment of its own, because a package of checkov has the same modules.
check-infra: .venv-infra/ready .venv/test $(GO)/actionlint ## check Terraform, images, manifests and workflows
	terraform fmt -check -diff -recursive infra/terraform
	$(UV) tool run -q --from python-hcl2==8.1.4 hcl2tojson -q -o scratch/hcl2 infra/terraform/*.tf \
		infra/terraform/tests/*.hcl
	$(INFRA)/checkov -d infra/terraform --framework terraform --skip-download --compact --quiet
	$(BIN)/python -m infra.flex_template --check
	$(INFRA)/hadolint infra/docker/Dockerfile
	$(foreach version,1.29 1.37,$(INFRA)/kubernetes-validate -k $(version) --strict --quiet $(MANIFESTS) &&) true
	$(BIN)/python -m pytest tests/infra/flink_operator.py
	$(GO)/actionlint

bench: .venv/test ## run the benchmarks of the hot paths
	$(BIN)/python -m tests.benchmarks.host_cost
	$(BIN)/python -m tests.benchmarks.hint_cost
	$(BIN)/python -m tests.benchmarks.job_cost
	$(BIN)/python -m tests.benchmarks.memory
	$(BIN)/python -m tests.benchmarks.resume_cost
	$(BIN)/python -m tests.benchmarks.lab_records

lock: .venv/demo ## resolve the lock files from setup.py, infra/checks and this file
	$(UV) pip compile -q --python-version 3.11 --no-header --no-annotate infra/checks/requirements.in \
		-o infra/checks/requirements.lock
	echo ocfl-py==2.1.0 | $(UV) pip compile -q --python-version 3.11 --no-header --no-annotate - -o tests/ocfl.lock
	$(COMPILE) --extra cpu --extra demo -o requirements.lock
	$(COMPILE) --extra cpu --extra demo --extra gcp --extra worker --extra test -c requirements.lock -o requirements-test.lock
	$(COMPILE) --extra gpu --extra gcp --extra s3 --extra c2pa --extra mark --extra worker -c requirements-test.lock -o requirements-gpu.lock
	echo "tensorflow-cpu; sys_platform == 'never'" > .venv/override # TFX asks for `tensorflow`, the same package by another name
	$(COMPILE) --extra tfx --extra test -c requirements-test.lock --override .venv/override -o requirements-tfx.lock
	$(COMPILE) --python-platform x86_64-manylinux_2_39 --extra tfx121 --extra test -o requirements-tfx121.lock

clean: ## remove the environments and the output of the demonstration
	rm -rf .venv .venv-tfx .venv-ocfl .venv-infra .venv-uv scratch

# requirements-test.lock contains all of requirements.lock.
.venv/demo: requirements.lock
.venv/test: requirements-test.lock
.venv/%: setup.py | .venv/bin/python $(UV)
	$(UV) pip install -q --compile-bytecode --python $(BIN)/python $(foreach lock,$(filter %.lock,$^),-r $(lock))
	$(UV) pip install -q --no-deps --no-build-isolation --python $(BIN)/python -e .
	@touch $@

.venv-tfx/ready: $(TFX_LOCK) .venv/demo | .venv-tfx/bin/python $(UV)
	$(UV) pip install -q --compile-bytecode --python $(TFX)/python -r $(TFX_LOCK)
	$(UV) pip install -q --no-deps --no-build-isolation --python $(TFX)/python -e .
	@touch $@

# s3fs, which ocfl-py asks for, wants an older botocore than the tests of S3 have.
.venv-ocfl/ready: tests/ocfl.lock | .venv-ocfl/bin/python $(UV)
	$(UV) pip install -q --compile-bytecode --python .venv-ocfl/bin/python -r $<
	@touch $@

.venv-infra/ready: infra/checks/requirements.lock | .venv-infra/bin/python $(UV)
	$(UV) pip install -q --compile-bytecode --python $(INFRA)/python -r $<
	@touch $@

$(GO)/actionlint:
	GOBIN=$(CURDIR)/$(GO) go install github.com/rhysd/actionlint/cmd/actionlint@v1.7.12

# uv finds Python 3.11 on this machine, or downloads it.
.PRECIOUS: %/bin/python
%/bin/python: | $(UV)
	@$(UV) venv -q --seed --python 3.11 $* 2>.venv-uv/log || { echo "Python 3.11 is needed, was not found, and could not" \
		"be downloaded: install it (Ubuntu: the deadsnakes packages; elsewhere: pyenv) and run make again" >&2; exit 1; }

$(UV):
	@test "$$(uname -s)" = Linux || { echo "Linux is needed: use WSL2 on Windows, or a container on macOS" >&2; exit 1; }
	@$(PYTHON) -m venv .venv-uv 2>/dev/null >&2 || { rm -rf .venv-uv; echo "$(PYTHON) cannot make an environment: install" \
		"Python with its venv module (Debian, Ubuntu: apt install python3-venv) and run make again" >&2; exit 1; }
	@.venv-uv/bin/python -m pip --disable-pip-version-check install -q uv==0.13.9
