# Everything here needs only Python 3.11 or newer, GNU make (3.81 will do) and a package index.
#
#   PYTHON=python3.12   the interpreter to use, instead of the first one that works
#   VENV=.venv          where the virtual environment is
#   ARGS="..."          handed on to the command that is run

PYTHON ?=
VENV ?= .venv
ARGS ?=

BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help setup demo serve test check format-check lint types house coverage format bench screens lock clean

help: ## Print this.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

# --- setting up ------------------------------------------------------------------------------------------------------

setup: ## Make the virtual environment, as locked. Does nothing when nothing has changed.
	@PYTHON="$(PYTHON)" VENV="$(VENV)" sh -euc "$$SETUP"

# The shell program of `make setup`. uv does the installing, because it is several times faster; pip fetches uv, by hash,
# and takes over where uv is not to be had. What was set up is written to a stamp, by content and not by file times, so
# that it holds across checkouts; it names the folder too, because a virtual environment does not survive being moved.
define SETUP
say() { echo "setup: $$*"; }
die() { echo "setup: $$*" >&2; exit 1; }
identity() { "$$1" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3], sys.base_prefix)' 2>/dev/null; }
suits() { "$$1" -c 'import sys, ssl, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

stamp="$$VENV/.setup-stamp"
inputs="$$(cat pyproject.toml requirements.lock requirements-setup.lock | cksum) in $$(pwd)"
have="$$(identity "$$VENV/bin/python" || true)"
wanted="$$have"
if [ -n "$$PYTHON" ]; then wanted="$$(identity "$$PYTHON")" || die "PYTHON=$$PYTHON does not run"; fi
if [ -n "$$have" ] && [ "$$have" = "$$wanted" ] && [ "$$(cat "$$stamp" 2>/dev/null)" = "$$inputs, $$have" ]; then exit 0; fi

began="$$(date +%s)"
# A version manager may put commands on the path that exist and refuse to run: each candidate is tried.
for candidate in $${PYTHON:-python3.13 python3.12 python3.11 python3 python3.14 python}; do
    if suits "$$candidate"; then python="$$candidate"; break; fi
done
[ -n "$${python:-}" ] || die "no Python 3.11 or newer found$${PYTHON:+ at $$PYTHON}; install one, or name it: make setup PYTHON=/path/to/python3"

old="$$(sed 's/^[0-9 ]* in //' "$$stamp" 2>/dev/null || true)"
if [ -z "$$have" ] || [ "$$have" != "$$wanted" ] || [ "$$old" != "$$(pwd), $$have" ]; then
    if [ -e "$$VENV" ] && [ ! -f "$$VENV/pyvenv.cfg" ]; then die "$$VENV exists and is no virtual environment; move it away"; fi
    say "virtual environment in $$VENV, Python $$(identity "$$python")"
    "$$python" -m venv --clear --without-pip "$$VENV" || die "could not make a virtual environment with $$python"
fi
rm -f "$$stamp"
inside="$$VENV/bin/python"

# pip: the environment's own, the interpreter's (22.3 and newer can install elsewhere), or the copy Python brings along.
pip=""
if "$$inside" -m pip --version >/dev/null 2>&1; then pip="$$inside -m pip"
elif "$$python" -m pip --python "$$inside" --version >/dev/null 2>&1; then pip="$$python -m pip --python $$inside"
elif "$$inside" -m ensurepip >/dev/null 2>&1; then pip="$$inside -m pip"
fi
export PIP_USER=0 PIP_NO_INPUT=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

uv="$$VENV/bin/uv"
if ! "$$uv" --version >/dev/null 2>&1; then
    if [ -n "$$pip" ]; then
        $$pip install -q --only-binary :all: --require-hashes -r requirements-setup.lock >/dev/null 2>&1 || uv=""
    elif uv --version >/dev/null 2>&1; then uv=uv
    else die "$$python has neither pip nor ensurepip; on Debian or Ubuntu: apt-get install python3-venv"
    fi
fi

installed=""
count="$$(grep -c '==' requirements.lock)"
if [ -n "$$uv" ]; then
    say "$$count locked packages, by uv"
    # uv does not read pip's settings; a mirror or a certificate that was set there is meant for it too.
    settings="$$($${pip:-false} config list 2>/dev/null || true)"
    setting() { echo "$$settings" | sed -E -n "s/^(global|install|:env:)\\.$$1='(.*)'\$$/\\2/p" | tail -n 1; }
    mirror="$${UV_DEFAULT_INDEX:-$$(setting index-url)}"
    certificates="$${SSL_CERT_FILE:-$$(setting cert)}"
    if [ -n "$$mirror" ]; then export UV_DEFAULT_INDEX="$$mirror"; fi
    if [ -n "$$certificates" ]; then export SSL_CERT_FILE="$$certificates"; fi
    if "$$uv" pip sync -q --python "$$inside" --require-hashes requirements.lock requirements-setup.lock; then
        say "tenuto itself, editable"
        "$$uv" pip install -q --python "$$inside" --no-deps --no-build-isolation --editable .
        "$$uv" pip check -q --python "$$inside" || die "requirements.lock does not satisfy pyproject.toml; run make lock"
        installed=yes
    elif [ -z "$$pip" ]; then exit 1
    fi
fi
if [ -z "$$installed" ]; then
    say "$$count locked packages, by pip"
    $$pip install -q --require-hashes -r requirements.lock
    say "tenuto itself, editable"
    $$pip install -q --no-deps --no-build-isolation --editable .
fi
echo "$$inputs, $$(identity "$$inside")" >"$$stamp"
say "done in $$(( $$(date +%s) - began )) s"
endef
export SETUP

# --- running ---------------------------------------------------------------------------------------------------------

demo: setup ## Show the engine at work, then stay up to be tried. ONCE=1 checks every step and exits.
	@$(BIN)/tenuto demo $(if $(ONCE),--once) $(ARGS)

serve: setup ## Start the service. ARGS="--port 8080 --data DIR" and so on.
	@$(BIN)/tenuto serve $(ARGS)

bench: setup ## Measure throughput and latency on this machine.
	@$(BIN)/tenuto bench $(ARGS)

screens: setup ## Make pictures of every screen of the console, in build/screens. Needs Chromium.
	@$(BIN)/python -m tests.console.screens $(ARGS)

# --- checking --------------------------------------------------------------------------------------------------------

test: setup ## Run the whole test suite on the embedded PostgreSQL. ARGS="-m slow" runs the campaigns.
	@$(PYTEST) $(ARGS)

check: format-check lint types house coverage ## Everything that needs no database: format, lint, types, house, coverage of core.

format-check: setup
	@$(BIN)/ruff format --check --diff .

lint: setup ## Lint only.
	@$(BIN)/ruff check .

types: setup ## Check types only.
	@$(BIN)/mypy

house: setup ## Check the rules of the house only: layers, names, lengths.
	@$(PYTEST) -q tests/house $(ARGS)

coverage: setup ## Run the tests of the core; every line and branch of it must be covered.
	@$(BIN)/coverage run -m pytest -q tests/core $(ARGS)
	@$(BIN)/coverage report

format: setup ## Format the code and mend what lint can mend by itself.
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# --- the rest --------------------------------------------------------------------------------------------------------

# Without ARGS the versions in the locks are kept where they still fit.
lock: ## Lock the dependencies anew. ARGS=--upgrade takes the newest versions.
	@[ -x $(BIN)/uv ] || $(MAKE) setup
	@$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header $(ARGS) \
		--extra embedded --group dev -o requirements.lock pyproject.toml
	@echo uv | $(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
		$(ARGS) -o requirements-setup.lock -

clean: ## Remove the virtual environment, caches and builds. Never touches data.
	@rm -rf .venv .venv-* .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.* build dist
	@find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
