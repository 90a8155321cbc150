# Two commands do all set-up on a fresh machine: `make run` and `make test`.
# Everything is installed below this folder (.venv, node_modules); Debian packages only by root, and only if missing.
# Another Python beside the first: make PYTHON=python3.13 VENV=.venv-3.13 test

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PEERS := tests/peers/oidc
BENCH := tests/bench/peers
RECIPES := tests/peers/recipes
FUZZ = $(if $(TARGET),$(TARGET),requests targets token_replies metadata callbacks answers)
ALONE = $(BIN)/python -m pytest -m "alone and not soak"
# As many as there are processors: one more saves little, and makes others late.
TOGETHER = $(BIN)/python -m pytest -m "not alone and not waits and not soak" --dist worksteal -n $$(getconf _NPROCESSORS_ONLN)
# These leave the processors to the others. Their output is shown when both have ended.
WAITING = COVERAGE_FILE=.make/coverage $(BIN)/python -m pytest -m "waits and not alone and not soak" \
  --dist worksteal -n $$((1 + $$(getconf _NPROCESSORS_ONLN))) $$(grep -rl 'mark\.waits' tests --include='test_*.py')
BOTH = { $(WAITING) $(1) > .make/waiting.log 2>&1 & } && waiting=$$!; \
  $(TOGETHER) $(2); together=$$?; \
  wait $$waiting; waited=$$?; cat .make/waiting.log; \
  [ $$together = 0 ] && [ $$waited = 0 ]

.DEFAULT_GOAL := help
.PHONY: help run test plain soak container-test lint format pages pictures docs bench fuzz dist clean

help:  ## show what there is to make
	@sed -n 's/^\([a-z-]*\):.*  ## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

run: $(VENV)/.runtime  ## run bearerd, on the embedded demo when there is no configuration
	@exec $(BIN)/bearerd run --or-demo

test: $(VENV)/.dev $(VENV)/.wheels .make/peers .make/recipes  ## run all tests, with their coverage
	$(ALONE) --cov --cov-report= --cov-fail-under=0
	@$(call BOTH,--cov --cov-report= --cov-fail-under=0,--cov --cov-append --cov-report= --cov-fail-under=0)
	$(BIN)/coverage combine --quiet --append .make/coverage
	$(BIN)/coverage report

plain: export PYTHONPATH = tests/asyncio_only
plain: $(VENV)/.dev $(VENV)/.wheels .make/peers .make/recipes  ## run all tests without uvloop, on asyncio's own event loop
	$(ALONE)
	@$(call BOTH)

soak: $(VENV)/.dev $(VENV)/.wheels .make/installers-venv .make/peers .make/recipes  ## run the tests that take long
	@.ci/need slowhttptest promtool
	PATH="$(CURDIR)/.make/installers-venv/bin:$$PATH" $(BIN)/python -m pytest -m "soak and not container" --timeout=1200

container-test: $(VENV)/.dev .make/container-venv  ## build the image and run the examples of docker/ with it
	@.ci/need podman buildah runc mmdebstrap catatonit
	PATH="$(CURDIR)/.make/container-venv/bin:$$PATH" $(BIN)/python -m pytest -m container --timeout=600 tests/container

lint: $(VENV)/.dev  ## check style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(VENV)/.dev  ## put the code in form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

pages: $(VENV)/.dev  ## write the pages that are made from the program: commands, man pages, schema
	PYTHONPATH=proxy:tests $(BIN)/python -m pages

docs: $(VENV)/.dev  ## make the documentation's site, into build/site
	@rm -rf build/site
	PYTHONPATH=proxy:tests $(BIN)/python -m pages.site build/site
	@echo "to read it: $(BIN)/python -m http.server --bind 127.0.0.1 --directory build/site"

pictures: $(VENV)/.dev  ## take the pictures of the first page anew, of a demo in a browser
	@.ci/need chromium
	PYTHONPATH=proxy:tests $(BIN)/python -m pages.pictures

bench: .make/bench  ## measure bearerd beside nginx, Envoy, Go and others, into docs/benchmarks.md
	@PATH="$(CURDIR)/.make/bench-venv/bin:$$PATH" PYTHONPATH=tests \
	  $(BIN)/python -m bench $(if $(DURATION),--duration $(DURATION)) $(PROXIES)

fuzz: .make/fuzz-venv  ## give parsers what nobody has written, ten minutes each (TARGET=requests SECONDS=60)
	@for target in $(FUZZ); do \
	  PYTHONPATH=proxy:tests:$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') \
	    .make/fuzz-venv/bin/python -m fuzz $$target $(SECONDS) || exit 1; \
	done

dist: $(VENV)/.runtime  ## build what is released, a wheel and the source, into dist/
	rm -rf dist
	$(BIN)/python -P -m hatchling build --directory dist

clean:  ## remove what was installed and made
	rm -rf .venv* .make $(PEERS)/node_modules $(BENCH)/node_modules $(RECIPES)/node_modules build dist .coverage* .hypothesis .*_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "bearerd needs Python 3.11 or newer: make PYTHON=python3.12 run" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: .ci/requirements/runtime.txt pyproject.toml | $(BIN)/python
	$(PIP) install --require-hashes -r $<
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: .ci/requirements/dev.txt $(VENV)/.runtime
	$(PIP) install --require-hashes -r $<
	@touch $@

# What tests install bearerd from, without an index.
$(VENV)/.wheels: .ci/requirements/wheels.txt | $(VENV)/.runtime
	rm -rf $(VENV)/wheels
	$(PIP) wheel --no-deps --require-hashes -r $< --wheel-dir $(VENV)/wheels
	@touch $@

.make/installers-venv: .ci/requirements/installers.txt $(VENV)/.dev
	$(BIN)/python -m venv $@
	$@/bin/pip --disable-pip-version-check --quiet install --require-hashes -r $<
	@touch $@

.make/bench: .ci/requirements/bench.txt $(BENCH)/package-lock.json $(VENV)/.dev
	@.ci/need nginx wrk node npm go
	$(BIN)/python -m venv .make/bench-venv
	.make/bench-venv/bin/pip --disable-pip-version-check --quiet install --require-hashes -r $<
	cd $(BENCH) && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

.make/fuzz-venv: .ci/requirements/fuzz.txt $(VENV)/.dev
	$(BIN)/python -m venv $@
	$@/bin/pip --disable-pip-version-check --quiet install --require-hashes -r $<
	@touch $@

.make/container-venv: .ci/requirements/container.txt $(VENV)/.dev
	$(BIN)/python -m venv $@
	$@/bin/pip --disable-pip-version-check --quiet install --require-hashes -r $<
	@touch $@

.make/peers: $(PEERS)/package-lock.json
	@.ci/need node npm openssl dbus-daemon dbus-send gnome-keyring-daemon faketime chromium strace nginx go git curl jq bash zsh fish mandoc systemd-analyze jq
	cd $(PEERS) && npm ci --no-audit --no-fund --loglevel=error
	@mkdir -p .make && touch $@

# The clients of docs/recipes/, apart from what bearerd is made and tested with.
.make/recipes: .ci/requirements/recipes.txt $(RECIPES)/package-lock.json | $(VENV)/.dev
	@.ci/need curl git node npm
	$(BIN)/python -m venv --clear .make/recipes-venv
	.make/recipes-venv/bin/pip --disable-pip-version-check --quiet install --no-compile --require-hashes -r $<
	cd $(RECIPES) && npm ci --no-audit --no-fund --loglevel=error
	@touch $@
