# Two commands: `make demo` runs the whole method, `make test` checks it. Both set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Where torch comes from, for instance the index of its CPU builds; empty is the default index.
TORCH_INDEX ?=
READY := $(VENV)/.ready
# Tests start hundreds of processes, each of which would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test check pictures clean

demo: $(READY)
	$(BIN)/python stages/run_pipeline.py --config configs/demo.yaml
	$(BIN)/python stages/TD_Inference.py --model data/demo/model
	$(BIN)/python stages/NLML_HPE_Test.py --config configs/demo.yaml

# Two files of tests at a time, each with one thread: threads that wait for each other take longer than one alone.
test: check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

pictures: $(READY)
	$(BIN)/python docs/pictures.py --config configs/demo.yaml

# torch first and by its exact version: an unpinned torch may bring gigabytes of GPU libraries.
# The editable install also makes FaceMesh's two networks, once, in the user's cache (hatch_build.py).
$(READY): pyproject.toml constraints.txt hatch_build.py nlml_hpe/detection/weights.py nlml_hpe/detection/tflite_to_onnx.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[train,quantize,cluster,tensorboard,dev]"
	# Without its dependencies: its OpenCV would overwrite ours, and the rest is there.
	$(BIN)/python -m pip install --quiet --no-deps --constraint constraints.txt face-alignment
	touch $(READY)

clean:
	rm -rf $(VENV) data/demo
