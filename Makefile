# `make run` and `make test` set up what they need in .venv; `make help` lists the rest.
.PHONY: help run run-s3 test test-rest test-all test-io test-lowest test-clients lint format types docs tutorials check kernels bench bench-quick bench-data bench-engines bench-strategies bench-serving bench-paths bench-family bench-tasks bench-lists bench-sequences bench-negatives bench-stream bench-new-values bench-input-service bench-input-service-kills bench-kills verify-tpu clean
.DEFAULT_GOAL := help

PYTHON ?= python3
# Each takes up to 2.5 GB of memory.
TEST_PROCESSES ?= 2
# Further options of pytest, such as TESTS='-k cluster -x'.
TESTS ?=
# Where the environment forbids bytecode files, each program that a test starts would compile TensorFlow anew: 20 seconds.
export PYTHONDONTWRITEBYTECODE :=
VENV := .venv
BIN := $(VENV)/bin
SETUP := $(VENV)/installed
PEERS := $(VENV)/installed-peers
DOCS := $(VENV)/installed-docs
# tensorflow-io and the lowest TensorFlow need a Python that has wheels of them.
OLDER_PYTHON ?= python3.11
IO_VENV := .venv-io
LOWEST_VENV := .venv-lowest
CLIENTS_VENV := .venv-clients
FUXICTR_VENV := .venv-fuxictr
DEEPCTR_VENV := .venv-deepctr
TPU_VENV := .venv-tpu
TPU_SETUP := $(TPU_VENV)/installed

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

$(SETUP): setup.py
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 10) <= v < (3, 14) else "Python 3.10 to 3.13 is needed and this is %d.%d; run: make PYTHON=/path/to/python3.x TARGET" % v)'
	@echo "Setting up $(VENV): one to five minutes, once."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --no-compile --quiet --disable-pip-version-check --progress-bar off --editable '.[dev]'
	@touch $@

$(PEERS): $(SETUP)
	@echo "Adding the libraries to compare with: PyTorch, FBGEMM and Keras RS."
	@$(BIN)/python -m pip install --no-compile --quiet --disable-pip-version-check --progress-bar off --editable '.[dev,bench]'
	@touch $@

$(DOCS): $(SETUP)
	@echo "Adding MkDocs."
	@$(BIN)/python -m pip install --no-compile --quiet --disable-pip-version-check --progress-bar off --editable '.[dev,docs]'
	@touch $@

$(TPU_SETUP):
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v >= (3, 11) else "JAX needs Python 3.11 and this is %d.%d; run: make PYTHON=/path/to/python3.x TARGET" % v)'
	@echo "Setting up $(TPU_VENV) with JAX and libtpu: 1 GB, once."
	@$(PYTHON) -m venv $(TPU_VENV)
	@$(TPU_VENV)/bin/python -m pip install --no-compile --quiet --disable-pip-version-check --progress-bar off jax==0.10.2 libtpu==0.0.52
	@touch $@

$(IO_VENV)/installed: setup.py
	@echo "Setting up $(IO_VENV): TensorFlow 2.17 with tensorflow-io, once."
	@$(OLDER_PYTHON) -m venv $(IO_VENV)
	@$(IO_VENV)/bin/python -m pip install --no-compile --quiet --disable-pip-version-check --progress-bar off --editable '.[io]' 'pytest>=8'
	@touch $@

$(LOWEST_VENV)/installed: setup.py
	@echo "Setting up $(LOWEST_VENV): the lowest TensorFlow that setup.py admits, once."
	@$(OLDER_PYTHON) -m venv $(LOWEST_VENV)
	@$(LOWEST_VENV)/bin/python -m pip install --no-compile --quiet --disable-pip-version-check --progress-bar off --editable '.[lowest]' 'pytest>=8'
	@touch $@

# The last two packages bring directories `tensorflow` and `tensorflow_serving`, so each is in a directory of its own.
# serving-utils asks for grpcio-tools, which it does not use and which does not install beside this protobuf.
CLIENTS_PIP := $(CLIENTS_VENV)/bin/python -m pip install --no-compile --quiet --disable-pip-version-check --progress-bar off
$(CLIENTS_VENV)/installed:
	@echo "Setting up $(CLIENTS_VENV): published clients of TensorFlow Serving, once."
	@$(OLDER_PYTHON) -m venv $(CLIENTS_VENV)
	@$(CLIENTS_PIP) tensorflow-cpu==2.17.1 protobuf==3.20.3 grpcio==1.66.2 grpclib==0.4.7
	@$(CLIENTS_PIP) --no-deps tensorflow-serving-api==2.17.1 serving-utils==0.10.0
	@$(CLIENTS_PIP) --no-deps --target $(CLIENTS_VENV)/min-tfs-client min-tfs-client==1.0.2
	@$(CLIENTS_PIP) --no-deps --target $(CLIENTS_VENV)/tensorflow-serving-client-grpc tensorflow-serving-client-grpc==2.3.0
	@touch $@

# FuxiCTR 2.3 reads files with an argument that polars 2 has not. DeepCTR-Torch imports pandas and requests, and asks for neither.
$(FUXICTR_VENV)/installed:
	@echo "Setting up $(FUXICTR_VENV): FuxiCTR with PyTorch and Ray, once. Set OLDER_PYTHON if python3.11 is missing."
	@$(OLDER_PYTHON) -m venv $(FUXICTR_VENV)
	@$(FUXICTR_VENV)/bin/python -m pip install --no-compile --quiet --disable-pip-version-check --progress-bar off fuxictr==2.3.10 torch==2.13.0 'polars<2'
	@touch $@

$(DEEPCTR_VENV)/installed:
	@echo "Setting up $(DEEPCTR_VENV): DeepCTR-Torch with PyTorch, once. Set OLDER_PYTHON if python3.11 is missing."
	@$(OLDER_PYTHON) -m venv $(DEEPCTR_VENV)
	@$(DEEPCTR_VENV)/bin/python -m pip install --no-compile --quiet --disable-pip-version-check --progress-bar off deepctr-torch==0.3.0 torch==2.13.0 pandas requests
	@touch $@

run: $(SETUP)  ## the quickstart: raw logs to a trained, evaluated and exported DLRM
	@$(BIN)/python train/main.py
	@echo; $(BIN)/python train/evaluate.py --workdir=runs/quickstart
	@echo; $(BIN)/python export/main.py --workdir=runs/quickstart --output=exports/quickstart

run-s3: $(SETUP)  ## the quickstart in an S3 on loopback that fails one request in twenty
	@rm -rf runs/loopback-s3-cache
	@TFRS_DLRM_CACHE=runs/loopback-s3-cache $(BIN)/python tests/support/loopback_s3.py --failing=0.05 --bucket=trial -- sh -ec '\
	  $(BIN)/python train/main.py --config.data.path=s3://trial/data/quickstart --workdir=s3://trial/runs/quickstart; \
	  $(BIN)/python train/evaluate.py --workdir=s3://trial/runs/quickstart; \
	  $(BIN)/python export/main.py --workdir=s3://trial/runs/quickstart --output=s3://trial/exports/quickstart; \
	  $(BIN)/python export/verify.py s3://trial/exports/quickstart'

PYTEST = $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder --durations=10 $(TESTS)
SLOW := cluster or spark or browser or realdata or matrix or process or slow

test: $(SETUP)  ## every unit and whole small paths: 16 minutes on 2 cores
	@$(PYTEST) -m 'not ($(SLOW))'

test-rest: $(SETUP)  ## what `make test` leaves out: clusters, Spark, the browser, real data, programs, combinations
	@$(PYTEST) -m '$(SLOW)'

# In two runs, since the memory of a test process grows with the tests that it runs.
test-all: $(SETUP)  ## both, and which lines of the library they reach: 55 minutes on 2 cores
	@$(PYTEST) -m 'not ($(SLOW))' --cov --cov-report=
	@$(PYTEST) -m '$(SLOW)' --cov --cov-append --cov-report=term:skip-covered

test-io: $(IO_VENV)/installed  ## on TensorFlow 2.17 with tensorflow-io: streams, and a whole small run
	@$(IO_VENV)/bin/python -m pytest tests/smoke tests/streaming/test_readers.py tests/streaming/test_exactly_once.py

test-lowest: $(LOWEST_VENV)/installed  ## on the lowest TensorFlow that setup.py admits: a whole small run
	@$(LOWEST_VENV)/bin/python -m pytest tests/smoke

test-clients: $(SETUP) $(CLIENTS_VENV)/installed  ## clients from the package index ask the local server
	@$(BIN)/python -m pytest tests/published_clients

lint: $(SETUP)  ## style and mistakes
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: $(SETUP)  ## mends what lint can mend
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

types: $(SETUP)  ## types
	@$(BIN)/mypy

docs: $(DOCS)  ## the documentation as a site, in site/; fails at a broken link
	@NO_MKDOCS_2_WARNING=1 DISABLE_MKDOCS_2_WARNING=true PYTHONPATH=. TF_CPP_MIN_LOG_LEVEL=2 $(BIN)/python -m mkdocs build --quiet

tutorials: $(DOCS)  ## runs the notebooks of docs/tutorials and stores their outputs
	@TF_CPP_MIN_LOG_LEVEL=3 CUDA_VISIBLE_DEVICES= PYTHONPATH=$(CURDIR) $(BIN)/python -m nbconvert --log-level=WARN --to notebook --execute \
	  --ExecutePreprocessor.extra_arguments=--IPKernelApp.capture_fd_output=False --inplace docs/tutorials/*.ipynb

check: lint types test  ## the quick part of what CI runs

kernels: $(SETUP)  ## C++ kernels for training on CPUs, compiled for this machine: 10 seconds; optional
	@$(BIN)/python train/build_kernels.py

bench: $(PEERS)  ## training beside PyTorch, FBGEMM, TFRS and Keras: tables, JSON and pictures in benchmarks/results
	@$(BIN)/python benchmarks/train.py

bench-quick: $(PEERS)  ## the same on tiny sizes: shows that it works, its numbers mean nothing
	@$(BIN)/python benchmarks/train.py --quick --output=benchmarks/results-quick

bench-paths: $(SETUP) $(FUXICTR_VENV)/installed $(DEEPCTR_VENV)/installed  ## from CSV to a model file beside FuxiCTR and DeepCTR-Torch, a million rows
	@$(BIN)/python benchmarks/paths.py --fuxictr_python=$(FUXICTR_VENV)/bin/python --deepctr_python=$(DEEPCTR_VENV)/bin/python

bench-data: $(SETUP)  ## speed and memory of prepare and dataset on 5 million rows
	@$(BIN)/python benchmarks/data.py

bench-engines: $(SETUP)  ## prepare by DuckDB and by Spark on 2 million rows: speed, memory, the same bytes?
	@$(BIN)/python benchmarks/engines.py

bench-strategies: $(SETUP)  ## replicas, a local cluster, and the planner's memory beside a run's
	@$(BIN)/python benchmarks/strategies.py

bench-serving: $(SETUP)  ## latency of the export beside the obvious one, and of rank beside single rows
	@$(BIN)/python benchmarks/serving.py

bench-stream: $(SETUP) $(IO_VENV)/installed  ## along a stream of 150,000 JSON objects with three kills, by both readers; rows/s of JSON and TSV
	@PYTHONPATH=benchmarks $(BIN)/python -m streams.stream
	@PYTHONPATH=benchmarks $(IO_VENV)/bin/python -m streams.stream

bench-new-values: $(SETUP)  ## along a stream of 200,000 rows whose values come and go, with three kills
	@PYTHONPATH=benchmarks $(BIN)/python -m streams.new_values

bench-family: $(SETUP)  ## models on planted data whose best AUC is known for each kind of model
	@PYTHONPATH=benchmarks $(BIN)/python -m quality.family

bench-tasks: $(SETUP)  ## two labels that contradict each other, and purchases after clicks, on planted data
	@PYTHONPATH=benchmarks $(BIN)/python -m quality.tasks
	@PYTHONPATH=benchmarks $(BIN)/python -m quality.conversions

bench-lists: $(SETUP)  ## losses of the order within a query beside the log loss, on planted data with effects of queries
	@PYTHONPATH=benchmarks $(BIN)/python -m quality.lists

bench-sequences: $(SETUP)  ## target attention beside the mean of a history, on planted data with clicks that depend on the last events
	@PYTHONPATH=benchmarks $(BIN)/python -m quality.sequences

bench-negatives: $(SETUP)  ## a tenth of the negatives beside all rows: AUC, calibration and time
	@PYTHONPATH=benchmarks $(BIN)/python -m quality.negatives

bench-input-service: $(SETUP)  ## batches read by the trainer itself, and by input workers on this machine
	@$(BIN)/python benchmarks/input_service.py

bench-input-service-kills: $(SETUP)  ## kills of dispatcher and workers, 200 times: is every batch the right one?
	@PYTHONPATH=benchmarks $(BIN)/python -m faults.input_service_kills
bench-kills: $(SETUP)  ## programs killed at random moments and started again, and two at once in one directory
	@PYTHONPATH=benchmarks $(BIN)/python -m faults.kills

verify-tpu: $(SETUP) $(TPU_SETUP)  ## compiles MLPs, interaction and their gradients for TPUs; needs none. 5 minutes
	@$(BIN)/python benchmarks/tpu.py --compiler=$(TPU_VENV)/bin/python

clean:  ## removes what the quickstart wrote (not .venv)
	rm -rf data/quickstart data/quickstart-raw runs/quickstart exports/quickstart
