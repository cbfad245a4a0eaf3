# Every target does its own set-up: a virtual environment in .venv with the versions of
# constraints.txt. `make help` lists the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
OUT := out
WORKERS ?= 2
BASE ?= HEAD
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest
DEMO := sample_models/digits
TRAIN := OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.training
QUOTED := latency models robustness quantization decomposition first-screen rtl training

.DELETE_ON_ERROR:
.PHONY: help setup demo test check arch format wheel replay sample-models clean \
	bench bench-models bench-robustness bench-first-screen bench-quantization \
	bench-decomposition bench-latency bench-forms bench-rtl bench-training

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 22

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt setuptools
	$(BIN)/pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[torch,dev]'
	@touch $@

setup: $(STAMP)  ## make the virtual environment

demo: $(STAMP)  ## compress a small trained network and show the report
	@mkdir -p $(OUT)
	$(BIN)/edgecompress compress $(DEMO)_cnn.onnx --output $(OUT)/digits_cnn.onnx --force \
		--bits 2 --data $(DEMO)_calibration.npz --test-data $(DEMO)_test.npz \
		--target systolic-ws-32 --target winocnn-zcu102-w6

test: $(STAMP)  ## all tests, the long suites by a seeded slice
	$(PYTEST) -n $(WORKERS)

check: $(STAMP) arch  ## format, lint, types, import layers, generated files up to date
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python docs/generate.py --check
	$(BIN)/python sample_models/train.py --check
	$(BIN)/python -m benchmarks.first_screen.render --check
	$(BIN)/python -m benchmarks.models.render --check
	$(BIN)/python -m benchmarks.latency.render --check
	$(BIN)/python -m benchmarks.latency.worked_example --check

arch: $(STAMP)  ## import layers alone
	$(BIN)/lint-imports

format: $(STAMP)  ## rewrite the sources in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

wheel: $(STAMP)  ## build a wheel, install it elsewhere, use it there
	$(PYTEST) --full tests/unit/test_wheel.py

replay: $(STAMP)  ## compare plans, graphs and reports with those of BASE=revision, byte for byte
	$(BIN)/python benchmarks/replay.py --base $(BASE)

sample-models: $(STAMP)  ## train the sample models again
	$(BIN)/python sample_models/train.py

bench-models: $(STAMP)  ## every real model by every command (needs EDGECOMPRESS_DATA)
	$(BIN)/python -m benchmarks.models.measure
	$(BIN)/python -m benchmarks.models.render

bench-robustness: $(STAMP)  ## every odd file and every node model (needs EDGECOMPRESS_DATA)
	$(BIN)/python -m benchmarks.robustness.measure

bench-first-screen: $(STAMP)  ## the table of README.md (needs EDGECOMPRESS_DATA)
	$(BIN)/python -m benchmarks.first_screen.measure
	$(BIN)/python -m benchmarks.first_screen.render

bench-quantization: $(STAMP)  ## accuracy at each bit width (needs EDGECOMPRESS_DATA)
	$(BIN)/python -m benchmarks.quantization.measure

bench-decomposition: $(STAMP)  ## decomposition beside plain SVD (needs EDGECOMPRESS_DATA)
	$(BIN)/python -m benchmarks.decomposition.resnet20

bench-latency: $(STAMP)  ## cost models against simulators, published figures and other tools
	$(BIN)/python benchmarks/latency/winocnn_agreement.py
	$(BIN)/python benchmarks/latency/systolic_agreement.py
	$(BIN)/python benchmarks/latency/lowbit_agreement.py
	$(BIN)/python benchmarks/latency/winocnn.py
	$(BIN)/python benchmarks/latency/vela.py
	$(BIN)/python benchmarks/latency/mlperf_tiny.py
	$(BIN)/python benchmarks/latency/resnet18.py
	$(BIN)/python benchmarks/latency/peers.py
	$(BIN)/python benchmarks/latency/explore.py
	$(BIN)/python -m benchmarks.latency.training_step
	$(BIN)/python -m benchmarks.latency.worked_example
	$(BIN)/python -m benchmarks.latency.worked_example --render
	$(BIN)/python -m benchmarks.latency.render

bench-rtl: $(STAMP)  ## generated Verilog against the simulators, and its resources (Icarus, Yosys)
	$(BIN)/python -m benchmarks.rtl.agreement
	$(BIN)/python -m benchmarks.rtl.synthesis
	$(BIN)/python -m benchmarks.rtl.winograd

bench-training: $(STAMP)  ## tensorized training and healing; takes hours (needs EDGECOMPRESS_DATA)
	$(BIN)/pip install --quiet --constraint constraints.txt tensorly-torch opt_einsum
	$(TRAIN).planted_ranks
	$(TRAIN).fashion_mnist
	$(TRAIN).folding_choice accuracy
	$(TRAIN).folding_choice time
	$(TRAIN).layer_speed
	$(TRAIN).conv_chains
	$(TRAIN).tensorly_torch
	$(TRAIN).low_precision
	$(TRAIN).backprop_free
	$(TRAIN).recommender
	$(TRAIN).resnet20
	$(TRAIN).lenet
	$(TRAIN).interpreter
	$(TRAIN).resume
	$(TRAIN).distributed

bench-forms: $(STAMP)  ## forms of the written file (needs EDGECOMPRESS_DATA)
	$(BIN)/python benchmarks/forms/whole_net.py
	$(BIN)/python benchmarks/forms/decode_layout.py
	$(BIN)/python benchmarks/forms/linear_threshold.py

bench: $(addprefix bench-, $(QUOTED))  ## every benchmark whose figures are quoted

clean:  ## remove what make made
	rm -rf $(VENV) $(OUT) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
