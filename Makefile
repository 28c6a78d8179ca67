# The commands of a fresh checkout. Each installs what is missing first (tools/setup).
#
#   make demo      profile real text with a real model; leaves build/demo/report.html
#   make test      build and run every test
#   make serve     the server in the foreground with the demo model
#   make build     build/bin/ess_server, and .venv with the client and the command `ess`
#   make bench     print the benchmark tables
#   make parity    compare every architecture with the public implementation; writes docs/parity.md
#   make install   install the server under PREFIX (default /usr/local)
#   make format    format the sources
#   make lint      check format, types and style
#   make test-asan the C++ tests under AddressSanitizer and UndefinedBehaviorSanitizer
#   make fuzz      minutes of hostile input: libFuzzer, mutated calls, dropped connections (tools/fuzz)
#   make faults    minutes of faults: cancels, readers that vanish, dropped connections (tools/faults)
#   make soak      20 minutes of mixed load, and whether memory stays (tools/soak)
#   make test-tsan the C++ tests without LibTorch under ThreadSanitizer
PREFIX ?= /usr/local
JOBS ?= $(shell nproc)
PYTHON := .venv/bin/python

.PHONY: demo test serve build bench parity install format lint test-asan test-tsan fuzz faults soak setup clean
.DEFAULT_GOAL := build

setup:
	@tools/setup

build: setup
	@cmake --preset release >/dev/null
	@cmake --build --preset release -j $(JOBS)

demo: build
	@$(PYTHON) tools/demo

serve: build
	@tools/serve

test: build
	@tools/run_tests

bench: build
	@tools/run_benchmarks

parity: build
	@$(PYTHON) -m pytest -q tests/parity --full

install: build
	@cmake --install build --prefix $(PREFIX)

format: setup
	@git ls-files '*.h' '*.cc' | xargs clang-format -i
	@$(PYTHON) -m ruff format client tests tools
	@$(PYTHON) -m ruff check --fix client tests tools

lint: setup
	@git ls-files '*.h' '*.cc' | xargs clang-format --dry-run -Werror
	@$(PYTHON) -m ruff format --check client tests tools
	@$(PYTHON) -m ruff check client tests tools
	@cd client && ../$(PYTHON) -m mypy

# FOLDERS="tests/server/linalg ..." for some of the tests only.
test-asan: setup
	@cmake --preset asan >/dev/null
	@cmake --build --preset asan -j $(JOBS) $(if $(FOLDERS),--target $(FOLDERS:%=%/all))
	@for folder in $(or $(FOLDERS),.); do \
	  ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1 \
	    ctest --test-dir build/asan/$$folder --output-on-failure -j $(JOBS) || exit 1; \
	done

TSAN_TESTS := worker_pool_test cancellation_test work_queue_test metrics_test resident_models_test \
  resident_work_test resident_replacement_test resident_models_random_test

test-tsan: setup
	@cmake --preset tsan >/dev/null
	@cmake --build --preset tsan -j $(JOBS) --target $(TSAN_TESTS)
	@for test in $(TSAN_TESTS); do build/tsan/tests/$$test || exit 1; done

# FUZZ_SECONDS=N of each libFuzzer target, FUZZ_CALLS=N; ESS_SERVER_BINARY=FILE for another server.
fuzz: build
	@JOBS=$(JOBS) tools/fuzz

# FAULTS_CALLS=N, FAULTS_CANCELS=N.
faults: build
	@tools/faults

# SOAK_SECONDS=N, and SOAK_LEAK_SECONDS=N of the run that must fail.
soak: build
	@tools/soak

clean:
	@rm -rf build .venv
