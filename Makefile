# Two commands: `make run` and `make test`. Both build the environment if it is missing.
PYTHON ?= python3
VENV ?= .venv
RUN ?= runs/trackssm
BIN := $(VENV)/bin
LOCK := requirements/lock-py$(shell $(PYTHON) -c 'import sys; print("%d%d" % sys.version_info[:2])').txt
MOTIONS := identity constant_velocity kalman

.PHONY: run test test-slow venv lock

run: venv
	$(BIN)/python -m launch.prepare world --out $(RUN)/nuscenes --sweeps test --processes 2
	$(BIN)/python -m launch.prepare nuscenes --dataroot $(RUN)/nuscenes --split train val --out $(RUN)/data --processes 2
	$(BIN)/python -m launch.prepare nuscenes --dataroot $(RUN)/nuscenes --split test --detections --images --out $(RUN)/test_data --processes 2
	$(BIN)/python -m launch.prepare check --dataroot $(RUN)/nuscenes --data $(RUN)/test_data --out $(RUN)/check
	$(BIN)/python -m launch.train --config=configs/trackssm.py:quick --config.data.root=$(RUN)/data --workdir=$(RUN)/train
	for motion in $(MOTIONS); do \
	  $(BIN)/python -m launch.track --data $(RUN)/test_data --detections det --motion $$motion --out $(RUN)/tracks/$$motion || exit 1; \
	done
	$(BIN)/python -m launch.track --data $(RUN)/test_data --detections det --motion trackssm --weights $(RUN)/train --save_predictions --out $(RUN)/tracks/trackssm
	$(BIN)/python -m launch.plot curves --logs $(RUN)/train --out $(RUN)/plots/curves.png
	$(BIN)/python -m launch.plot tracks --data $(RUN)/test_data --run $(RUN)/tracks/trackssm --truth --out $(RUN)/plots/tracks.mp4
	$(BIN)/python -m launch.evaluate --truth $(RUN)/test_data --protocol nuscenes nuscenes_keyframes --out $(RUN)/scores \
	  --predictions $(foreach motion,$(MOTIONS) trackssm,$(RUN)/tracks/$(motion):$(motion))
	$(BIN)/python -m launch.plot hota --scores $(RUN)/scores/scores.json --out $(RUN)/plots/hota.png

test: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n 2

# The large networks' tests too; half an hour on 2 cores.
test-slow: venv
	$(BIN)/python -m pytest -m ""

venv: $(BIN)/.complete

$(BIN)/.complete: $(LOCK) setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -q --no-deps -r $(LOCK)
	$(BIN)/python -m pip install --disable-pip-version-check -q --no-deps --no-build-isolation -e .
	touch $@

# Reached only where there is no such file.
requirements/lock-py%.txt:
	@echo "error: tested with Python 3.11 and 3.12 only, not py$*; give one: make PYTHON=python3.12"; exit 1

# Developers only; needs uv.
lock:
	uv pip compile --no-emit-package vistraj-jax --python-version 3.11 --override requirements/overrides.txt requirements/all.in -o requirements/lock-py311.txt
	uv pip compile --no-emit-package vistraj-jax --python-version 3.12 --override requirements/overrides.txt -c requirements/gpu-constraint.txt requirements/all.in -o requirements/lock-py312.txt
