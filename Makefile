# Every target sets up what it needs: python3 and make are enough to begin. ARGS="..." goes to the tool that runs.

PYTHON ?= python3
BIN := .venv/bin
ENVIRONMENT := $(PYTHON) tools/environment.py
# Tests mostly wait, so more processes than cores; the tests of one file share servers and stay together.
PYTEST := $(BIN)/pytest -n 4 --dist loadfile

FUZZ_SECONDS ?= 30

.NOTPARALLEL:
.PHONY: help demo native test test-all test-slow test-twins test-redis-versions test-pythons test-competitive test-nightly fuzz
.PHONY: lint native-checks format types bench bench-peers docs clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' $(MAKEFILE_LIST) | expand -t 28

demo: ## the demo in a browser, with a server of its own
	@$(ENVIRONMENT) .venv '.[demo]'
	$(BIN)/cachekit demo $(ARGS)

native: ## build the native core anew, with cargo's own words about what is wrong
	@$(ENVIRONMENT) .venv '.[types]'
	$(BIN)/python tools/native.py build

test: ## the tests, at most 5 minutes
	@$(ENVIRONMENT) .venv '.[types]'
	$(PYTEST) -m "not slow and not nightly" $(ARGS)

test-all: test test-slow ## all tests but nightly ones, other versions of redis-py and Python, other caches, links

test-slow: ## what make test leaves out
	tools/system-packages
	@$(ENVIRONMENT) .venv '.[types]'
	@$(ENVIRONMENT) .venv 'pyarrow>=17' # as in the extra "arrow"; too large for make test
	$(PYTEST) -m "slow and not nightly" --ignore=tests/competitive $(ARGS)
	$(MAKE) test-twins test-redis-versions test-pythons test-competitive docs

test-twins: ## the tests on the pure Python table, and on a native one with debug assertions
	@$(ENVIRONMENT) .venv '.[types]'
	tools/test-twins $(BIN)

test-redis-versions: ## the backend tests on the oldest redis-py (make test has the newest)
	@$(ENVIRONMENT) .venv-redis-6.4 --copy '.[test]' 'redis==6.4.*'
	.venv-redis-6.4/bin/pytest -q -n 4 --dist loadfile -m "not slow and not nightly" -p no:cacheprovider tests/backends

test-pythons: ## the tests without servers, and those of Django, on Python 3.12 and 3.13, from an installed copy
	tools/other-pythons 3.12 3.13

test-competitive: ## that other caches do what docs/comparison.md says, in an environment of their own
	@$(ENVIRONMENT) .venv '.[types]'
	$(BIN)/pytest tests/competitive $(ARGS)

fuzz: ## stored bytes and configuration under a fuzzer, FUZZ_SECONDS=30
	@$(ENVIRONMENT) .venv '.[test,fuzz]'
	$(BIN)/python tests/fuzz/run_fuzz.py --seconds $(FUZZ_SECONDS) $(ARGS)

test-nightly: ## the tests that take hours
	@$(ENVIRONMENT) .venv '.[test,fuzz]'
	$(BIN)/pytest -m nightly $(ARGS) || test $$? -eq 5 # 5: there are none

lint: native-checks ## style and likely mistakes
	@$(ENVIRONMENT) .venv '.[lint]'
	$(BIN)/ruff check $(ARGS)
	$(BIN)/ruff format --check

native-checks: ## format, lints as errors and tests of the Rust sources
	@$(PYTHON) tools/native.py checks

format: ## rewrite what lint would refuse
	@$(ENVIRONMENT) .venv '.[lint]'
	$(BIN)/ruff check --fix-only --quiet
	$(BIN)/ruff format
	@$(PYTHON) tools/native.py format

types: ## our types, and what users' type checkers see
	@$(ENVIRONMENT) .venv '.[types]'
	$(BIN)/mypy --strict cachekit tests/typing tools
	$(BIN)/pyright --pythonpath $(BIN)/python
	@$(BIN)/python tools/native.py stub

bench: ## every benchmark
	tools/system-packages bench
	@$(ENVIRONMENT) .venv '.[test]'
	@$(ENVIRONMENT) .venv $$(cat benchmarks/http-peers.txt) # pages are compared in one process
	@for file in $$(grep -l __main__ benchmarks/*.py); do echo "== $$file"; $(BIN)/python $$file $(ARGS) || exit 1; done

bench-peers: ## what cachekit costs beside other caches, which get an environment of their own; ARGS=--quick: whether it runs
	@$(ENVIRONMENT) .venv '.[test]'
	@$(ENVIRONMENT) .venv $$(cat benchmarks/http-peers.txt)
	@$(ENVIRONMENT) .venv-bench $$(cat benchmarks/peers/requirements.txt) # one of them is another project named cachekit
	@$(BIN)/python benchmarks/peers --python .venv-bench/bin/python $(ARGS)

docs: ## write the generated pages anew, check every link, build the site into build/site
	@$(ENVIRONMENT) .venv '.[docs]'
	$(BIN)/python tools/api_reference.py
	$(BIN)/python tools/cli_page.py
	$(BIN)/python tools/diagrams.py
	$(BIN)/python tools/check_links.py
	$(BIN)/mkdocs build --quiet --strict

clean: ## remove everything that these targets made
	rm -rf .venv .venv-* .cache build dist native/target *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
	rm -f cachekit/_native*.so cachekit/_native*.pyd native/Cargo.lock
