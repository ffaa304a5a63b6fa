# The way in: `make compact` and `make test` are all that a fresh machine needs (python3 >= 3.11, make, git).
# Stamp files in .venv remember what is installed, so that a second run starts at once; a changed pyproject.toml installs again.

DATA ?= data
TESTS ?= tests
MINUTES ?= 10
RUNS ?= 2000
SEED ?= 0
N ?= 200
SECONDS ?=
RERUNS ?=
PYTHON ?= python3
VENV ?= .venv
PY ?= $(VENV)/bin/python
# The three stamps. Set to nothing (`make test PY=python BASE= TEST= CHECK=`) they leave an environment of your own alone.
BASE ?= $(VENV)/.base
TEST ?= $(VENV)/.test
CHECK ?= $(VENV)/.check
BENCH ?= $(VENV)/.bench

PIP = $(PY) -m pip install --quiet --disable-pip-version-check
# A test that hangs fails after five minutes, and says where it was. The whole suite runs on several processors, in one
# process more than there are, up to nine, because many tests wait. Bytecode is kept also where the environment says not to: the tests
# start the program some thousand times.
WORKERS ?= $(shell n=$$(nproc); echo $$((n < 8 ? n + 1 : 9)))
PYTEST = PYTHONDONTWRITEBYTECODE= $(PY) -m pytest -q --timeout 300 $(if $(RERUNS),--reruns $(RERUNS)) $(if $(filter tests,$(TESTS)),-n $(WORKERS) --dist loadscope --no-loadscope-reorder)
# Built into the folder of their sources; `pip` leaves no trace of it that is needed afterwards.
COMPILED = $(wildcard compactor/core/fast/*.pyx compactor/core/fast/*.pxd)

LAY_SAMPLE = mkdir -p "$$(dirname '$(DATA)')" && cp -R fixtures/sample '$(DATA)' && \
  echo 'Laid the sample of fixtures/sample into $(DATA)/ (delete it whenever you like).'

.DEFAULT_GOAL := help
.PHONY: help compact sample test test-pure laws wheel constraints faults flips soak libraries openapi chaos mutants fuzz fairness demo picture check format bench bench-latency bench-live bench-web bench-tracker clean

help:
	@echo 'compactor: an append-only log of order events becomes open orders and trades, exactly once.'
	@echo
	@echo '  make compact            fold every ledger of data/ and show what came out; the very first run'
	@echo '                          installs into .venv and lays a sample into data/'
	@echo '  make compact DATA=DIR   the same for another data directory'
	@echo '  make sample             lay the sample into data/ again, where there is no data/'
	@echo '  make test               run the tests (one file: make test TESTS=tests/test_cli.py)'
	@echo '  make test-pure          the same without the compiled modules (COMPACTOR_PURE_PYTHON=1)'
	@echo '  make wheel              build both distributions into dist/, install the wheel elsewhere and run it'
	@echo '  make laws RUNS=2000     lives of one ledger over passes, restarts and retentions; SEED=1 is the first of them'
	@echo '  make constraints        pin what a deployment installs, with hashes, in constraints.txt'
	@echo '  make faults             kill and fail the program at every system call (minutes; needs strace)'
	@echo '  make flips              turn a bit of every byte of every file of a ledger; verify has to see each (minutes)'
	@echo '  make soak MINUTES=10    writers and daemon killed at random, disk full, files damaged; then every byte is checked'
	@echo '  make openapi            hold requests and the local broker against Alpaca'"'"'s own OpenAPI document'
	@echo '  make chaos RUNS=2000    a broker that loses, doubles and spoils what it says, and fails; then we must agree with it (BROKER=small: another one; JOBS=2)'
	@echo '  make fuzz SECONDS=60    wild logs through every command, guided by what code they reach where atheris installs'
	@echo '  make fairness           hostile logs of one team; the others have to stay current within milliseconds'
	@echo '  make mutants N=200      small changes of core, ledger, imports, broker and sync: do the tests notice? (half an hour)'
	@echo '  make demo               a local Alpaca, three teams trading at random, compactor run, the open orders, and the page'
	@echo '  make picture            make the picture of the page in the README anew, from the real page'
	@echo '  make check              formatting, style, types, layers; changes nothing'
	@echo '  make format             put formatting and imports in order'
	@echo '  make bench              measure against DuckDB, Polars, jq and SQLite on this machine'
	@echo '  make bench-latency      from the write of an event to the new pending orders, beside the floor of this machine'
	@echo '  make bench-live         the link to the broker: messages a second, their latency, an hour of 10,000 fills caught up'
	@echo '  make bench-tracker      the order tracker: submit, a change seen, memory and the delay of the event loop'
	@echo '  make bench-web          the API and the page: requests a second, events on 500 streams, beside a bare server and nginx'
	@echo '  make clean              remove .venv and caches; data/ is never touched'
	@echo
	@echo 'Begin with make compact, then look: .venv/bin/compactor show pending'

compact: $(BASE)
	@# Only the very first run lays the sample: later on a missing directory is a wrong path, and the command says so.
	@if [ ! -e '$(DATA)' ] && [ ! -e '$(VENV)/.sample' ]; then $(LAY_SAMPLE); fi
	@if [ -d '$(VENV)' ]; then touch '$(VENV)/.sample'; fi
	@$(PY) -m compactor compact '$(DATA)'

sample:
	@if [ -e '$(DATA)' ]; then echo '$(DATA) is there already; it is left as it is.' >&2; exit 1; fi
	@$(LAY_SAMPLE)

test: $(TEST)
	@$(PYTEST) $(TESTS)

test-pure: $(TEST)
	@COMPACTOR_PURE_PYTHON=1 $(PYTEST) $(TESTS)

wheel: $(TEST)
	@rm -rf dist
	@$(PY) -m build --outdir dist . > /dev/null
	@COMPACTOR_DIST=dist $(PY) -m pytest -q --timeout 300 tests/test_package.py
	@ls -l dist

constraints: $(TEST)
	@$(PY) -m tests.constraints > constraints.txt
	@echo "constraints.txt: $$(grep -c hash= constraints.txt) packages"

laws: $(TEST)
	@PYTHONDONTWRITEBYTECODE=1 $(PY) -m tests.laws_machine --runs $(RUNS) --seed $(SEED)

faults: $(TEST)
	@PYTHONDONTWRITEBYTECODE=1 $(PY) -m tests.faults
	@COMPACTOR_EVERY_CALL=1 PYTHONDONTWRITEBYTECODE=1 $(PY) -m pytest -q tests/test_full_disk.py

flips: $(TEST)
	@PYTHONDONTWRITEBYTECODE=1 $(PY) -m tests.flips

soak: $(TEST)
	@PYTHONDONTWRITEBYTECODE=1 $(PY) -m tests.soak --minutes $(MINUTES)

# The oldest and the newest versions of the libraries that talk to the broker; needs the network.
libraries: $(TEST)
	@COMPACTOR_LIBRARIES=1 $(PY) -m pytest -q tests/test_libraries.py

# Alpaca's own OpenAPI document, against which the tests then hold our requests and the local server; needs the network.
openapi: $(TEST)
	@$(PIP) --no-deps alpaca-mcp-server
	@$(PY) -m pytest -q tests/test_openapi.py

chaos: $(TEST)
	@PYTHONDONTWRITEBYTECODE=1 $(PY) -m tests.chaos --runs $(RUNS) --seed $(SEED) --broker $(or $(BROKER),alpaca) --jobs $(or $(JOBS),1)

fuzz: $(TEST)
	@$(PIP) 'atheris>=2.3' 2> /dev/null || echo 'atheris does not install here: hypothesis searches without it'
	@PYTHONDONTWRITEBYTECODE=1 $(PY) -m tests.fuzz --seconds $(or $(SECONDS),60)

fairness: $(TEST)
	@PYTHONDONTWRITEBYTECODE=1 $(PY) -m tests.fairness $(ARGS)

mutants: $(TEST)
	@$(PY) -m tests.mutants --count $(N) --seed $(SEED) $(ARGS)

demo: $(TEST)
	@$(PY) -m tests.alpaca_server.demo --seed $(SEED) $(if $(SECONDS),--seconds $(SECONDS))

picture: $(TEST)
	@$(PY) -m tests.page_picture

check: $(CHECK)
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(PY) -m tests.page_types
	$(PY) -c 'from importlinter.cli import lint_imports_command; lint_imports_command()'

format: $(CHECK)
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

bench: $(BENCH)
	@$(PY) -m tests.bench $(ARGS)

bench-latency: $(BASE)
	@$(PY) -m tests.bench.latency $(ARGS)

bench-web: $(TEST)
	@$(PY) -m tests.bench.web $(ARGS)

bench-live: $(BASE)
	@$(PY) -m tests.bench.live $(ARGS)

bench-tracker: $(BASE)
	@$(PY) -m tests.bench.tracker $(ARGS)

clean:
	rm -rf '$(VENV)' dist build .mutants *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	rm -f compactor/core/fast/*.so compactor/core/fast/*.c
	find compactor tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.base: pyproject.toml $(COMPILED)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) is $$($(PYTHON) -V 2>&1), expected Python 3.11 or later; say which one: make PYTHON=python3.12" >&2; exit 1; }
	@echo 'Installing into $(VENV) (once; needs the network for a minute)'
	@$(PYTHON) -m venv '$(VENV)'
	@$(PIP) -e .
	@$(PY) -c 'from compactor.core.fast import IS_COMPILED as yes; yes or print("Without a C compiler and the headers \
	of Python all works, but folds are slower: compactor doctor")'
	@touch $@

# The extras of what is installed already: nothing is compiled a second time.
$(VENV)/.test: $(VENV)/.base
	@echo 'Installing what the tests need'
	@$(PIP) 'order-compactor[test]'
	@touch $@

$(VENV)/.check: $(VENV)/.base
	@echo 'Installing what the checks need'
	@$(PIP) 'order-compactor[check]'
	@touch $@

$(VENV)/.bench: $(VENV)/.base
	@echo 'Installing what the benchmark compares with'
	@$(PIP) 'order-compactor[tables]'
	@touch $@
