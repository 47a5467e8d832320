# What a developer types; `make` alone lists it. Python 3.10 or newer is all that has to be there.
PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 8000
# One exact version: where several builds of torch are on offer, a range picks the largest.
TORCH ?= 2.13.0
ATHERIS ?= 3.0.0
CXX ?= g++
FUZZ_SECONDS ?= 60
PYTEST_FLAGS ?= -n 2 --dist loadfile

BIN := .venv/bin
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check
NATIVE := CMakeLists.txt pyproject.toml $(wildcard native/*.cpp native/*.hpp)
NATIVE_TESTS := tests/smallfry --ignore=tests/smallfry/nn --ignore=tests/smallfry/client
SANITIZE := build/sanitize
THREADS := build/threads
GPU_TESTS := tests/smallfry/nn/test_triton.py tests/smallfry/nn/test_triton_compiled.py tests/smallfry/nn/test_cuda.py \
  tests/service/gpu/test_gpu.py

help:
	@echo 'make serve      a sample vocabulary, compressed and served on $(HOST):$(PORT)'
	@echo 'make test       all tests'
	@echo 'make test-ray   the server on a local Ray cluster'
	@echo 'make test-gpu   the tests that need a GPU; says what it skips and why'
	@echo 'make lint       formatting, lints and types'
	@echo 'make sanitize   the native code and its tests under AddressSanitizer and UBSan'
	@echo 'make sanitize-threads   one store under 64 threads, under ThreadSanitizer'
	@echo 'make fuzz       every fuzzer, FUZZ_SECONDS ($(FUZZ_SECONDS)) each; needs clang'
	@echo 'make bench      speed and memory of the library and its server, against other ways to do the same'
	@echo 'make bench-service   the server under load, against Redis; clients against each other'
	@echo 'make clean      remove everything that make made'

serve: sample.sfq
	@echo
	@echo 'Serving sample.sfq on http://$(HOST):$(PORT) (HOST= and PORT= change that; Ctrl-C stops). Try:'
	@echo
	@echo "    curl -s $(HOST):$(PORT)/lookup -H 'content-type: application/json' -d '{\"tokens\": [\"list\", \"string\", \"no-such-word\"]}'"
	@echo
	@exec $(BIN)/smallfry-serve --embeddings sample.sfq --host $(HOST) --port $(PORT)

sample.sfq: sample.txt
	@echo 'Compressing sample.txt to 2 bits a value'
	@$(BIN)/smallfry compress sample.txt -o $@ --nbit 2

sample.txt: | .venv/installed-server
	@echo "Making sample.txt from the text that Python carries (some seconds)"
	@$(BIN)/smallfry sample -o $@

test: .venv/installed-dev
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

# GPU_PYTHON=python3 takes an interpreter that has torch for CUDA, Triton, pytest and smallfry already.
GPU_PYTHON ?= $(BIN)/python
test-gpu: $(if $(filter $(BIN)/python,$(GPU_PYTHON)),.venv/installed-dev)
	SMALLFRY_TEST_GPU=1 $(GPU_PYTHON) -m pytest -rs $(GPU_TESTS) || [ $$? -eq 5 ] # 5: all were skipped

# A cluster on this machine. Ray's own warnings are not ours.
test-ray: .venv/installed-ray
	$(BIN)/python -m pytest -p no:warnings tests/ray

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror native/*.cpp native/*.hpp tests/fuzz/native/*.cpp tests/fuzz/native/*.hpp
	$(BIN)/mypy

# Under ThreadSanitizer, whose memory layout some kernels' randomisation breaks: setarch turns that off.
sanitize-threads: $(THREADS)/installed
	LD_PRELOAD="$$($(CXX) -print-file-name=libtsan.so) $$($(CXX) -print-file-name=libstdc++.so)" \
	setarch -R $(THREADS)/venv/bin/python -m pytest -p no:cacheprovider tests/smallfry/test_threads.py

$(THREADS)/installed: $(THREADS)/venv/bin/python $(NATIVE)
	@echo 'Building smallfry with ThreadSanitizer into $(THREADS)'
	@CXX='$(CXX)' SKBUILD_BUILD_DIR=$(THREADS)/cmake SKBUILD_CMAKE_DEFINE='SMALLFRY_SANITIZE=thread;SMALLFRY_WERROR=ON' \
	  $(THREADS)/venv/bin/python -m pip -qq --disable-pip-version-check install -e '.[test]'
	@ls $(THREADS)/venv/lib/python3*/site-packages/smallfry/_native*.so >/dev/null # a failed build would install without
	@touch $@

fuzz: .venv/installed-fuzz
	$(BIN)/python tests/fuzz/fuzz.py --seconds $(FUZZ_SECONDS)

# Needs the real data, in the folder SMALLFRY_DATA. ORIGINAL=PATH adds a checkout of HazyResearch/smallfry.
bench: .venv/installed-bench
	$(BIN)/python -m benchmarks.library.run $(if $(ORIGINAL),--original '$(ORIGINAL)')

# Needs the real data, and redis-server and wrk on the path. QUICK=1 only checks that everything runs.
bench-service: .venv/installed-bench
	@mkdir -p benchmarks/results
	$(BIN)/python -m benchmarks.server.clients $(if $(QUICK),--rounds 1 --seconds 0.1)
	$(BIN)/python -m benchmarks.server.load --out benchmarks/results/server_load.json \
	  $(if $(QUICK),--rows 20000 --rounds 1 --seconds 0.2)

.venv/installed-server: .venv/bin/python $(NATIVE)
	@echo 'Installing smallfry with its server into .venv'
	@$(PIP) install -e '.[server]'
	@touch $@

.venv/installed-dev: .venv/bin/python $(NATIVE)
	@echo 'Installing smallfry, torch $(TORCH) and the development tools into .venv'
	@$(PIP) install 'torch==$(TORCH)'
	@$(PIP) install -e '.[server,client,torch,safetensors,test,lint]'
	@touch $@ .venv/installed-server

.venv/installed-ray: .venv/installed-dev
	@echo 'Installing Ray into .venv'
	@$(PIP) install -e '.[ray]'
	@touch $@

.venv/installed-fuzz: .venv/installed-dev
	@echo 'Installing atheris into .venv'
	@$(PIP) install 'atheris==$(ATHERIS)' || echo 'It has no package for this Python: the readers will not be fuzzed' >&2
	@touch $@

.venv/installed-bench: .venv/installed-server
	@echo 'Installing torch $(TORCH) and the other sides of the comparisons into .venv'
	@$(PIP) install 'torch==$(TORCH)'
	@$(PIP) install -e '.[server,client,bench]'
	@touch $@

# pip learned to install editable projects like this one in 21.3.
%/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo 'smallfry needs Python 3.10 or newer; $(PYTHON) is missing or older: make PYTHON=python3.x …' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo '$(PYTHON) cannot make virtual environments: install its venv package (Debian, Ubuntu: apt install python3-venv)' >&2; exit 1; }
	@rm -rf $*
	@$(PYTHON) -m venv $*
	@$@ -m pip -qq --disable-pip-version-check install 'pip>=21.3'

# The module goes into an environment of its own, so that the usual one stays as it is.
sanitize: $(SANITIZE)/installed
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libubsan.so) $$($(CXX) -print-file-name=libstdc++.so)" \
	ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
	$(SANITIZE)/venv/bin/python -m pytest -p no:cacheprovider $(PYTEST_FLAGS) $(NATIVE_TESTS)

$(SANITIZE)/installed: $(SANITIZE)/venv/bin/python $(NATIVE)
	@echo 'Building smallfry with sanitizers into $(SANITIZE)'
	@CXX='$(CXX)' SKBUILD_BUILD_DIR=$(SANITIZE)/cmake SKBUILD_CMAKE_DEFINE='SMALLFRY_SANITIZE=address,undefined;SMALLFRY_WERROR=ON' \
	  $(SANITIZE)/venv/bin/python -m pip -qq --disable-pip-version-check install -e '.[test]'
	@ls $(SANITIZE)/venv/lib/python3*/site-packages/smallfry/_native*.so >/dev/null # a failed build would install without
	@touch $@

clean:
	rm -rf .venv build dist sample.txt sample.sfq .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.DEFAULT_GOAL := help
.PHONY: help serve test test-gpu test-ray lint bench bench-service sanitize sanitize-threads fuzz clean
.DELETE_ON_ERROR:
