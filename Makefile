# AI Proxy: `make help` lists the targets.

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV   ?= .venv
BIN     = $(VENV)/bin
CONFIG ?= config.toml

DESTDIR ?=
PREFIX  ?= /opt/ai-proxy
UNITDIR ?= /lib/systemd/system
CONFDIR ?= /etc/ai-proxy

.PHONY: help run test check fmt bench bench-gate profile soak install clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | sort | expand -t 14

$(VENV)/.runtime: setup.cfg pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer with venv is needed: apt-get install -y python3-venv" >&2; exit 1; }
	@test -x $(BIN)/python || { echo "Setting up $(VENV) with $(PYTHON) ..." >&2; $(PYTHON) -m venv $(VENV); }
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.tools: $(VENV)/.runtime
	@echo "Installing what tests and checks need ..." >&2
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[test,dev]'
	@touch $@

run: $(VENV)/.runtime ## set everything up and serve CONFIG (config.toml)
	@exec $(BIN)/python -m proxy serve --config $(CONFIG)

test: $(VENV)/.tools ## set everything up and run the tests
	@$(BIN)/python -m pytest -q

check: $(VENV)/.tools ## format, lint, strict types and import directions, as CI does
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q tests/test_imports.py

fmt: $(VENV)/.tools ## format the code and mend what the linter can mend
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(VENV)/.tools ## CPU, delay and memory beside a bare aiohttp relay, nginx and Envoy
	@$(BIN)/python -m tests.bench

bench-gate: $(VENV)/.tools ## fail if HEAD (the working tree) is dearer than BASE (the latest tag, else the commit before)
	@$(BIN)/python -m tests.bench.gate $(if $(BASE),--base '$(BASE)') $(if $(HEAD),--head '$(HEAD)') $(if $(BOUND),--bound $(BOUND))

profile: $(VENV)/.tools ## profile the gateway under the burst and JSON loads
	@$(BIN)/python -m tests.bench --profile

soak: $(VENV)/.tools ## MINUTES (10) of faults, cancellations and reloads; fail if anything stays behind
	@$(BIN)/python -m tests.bench.soak --minutes $(or $(MINUTES),10)

STAGE = $(abspath $(DESTDIR))$(PREFIX)

install: ## put program, units and a first config.toml under DESTDIR: PREFIX, UNITDIR, CONFDIR (EXTRAS=redis for workers)
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer with venv is needed: apt-get install -y python3-venv" >&2; exit 1; }
	@rm -rf build
	@$(PYTHON) -m venv "$(STAGE)"
	@"$(STAGE)/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade $(PIPFLAGS) '.$(if $(EXTRAS),[$(EXTRAS)])'
	@rm -rf build
	@# Scripts name the place where they will be, not the stage that they were made in.
	@grep -rlIF "$(STAGE)" "$(STAGE)/bin" "$(STAGE)/pyvenv.cfg" | xargs -r sed -i 's#$(STAGE)#$(PREFIX)#g'
	@install -d "$(DESTDIR)$(UNITDIR)" "$(DESTDIR)$(CONFDIR)"
	@install -d -m 700 "$(DESTDIR)$(CONFDIR)/keys"
	@for unit in ai-proxy.service ai-proxy.socket; do \
		sed -e 's#/opt/ai-proxy#$(PREFIX)#g' -e 's#/etc/ai-proxy#$(CONFDIR)#g' deploy/$$unit > "$(DESTDIR)$(UNITDIR)/$$unit" && \
		chmod 644 "$(DESTDIR)$(UNITDIR)/$$unit" || exit 1; done
	@test -e "$(DESTDIR)$(CONFDIR)/config.toml" || install -m 644 config.toml "$(DESTDIR)$(CONFDIR)/config.toml"
	@echo "Installed. Edit $(CONFDIR)/config.toml, then: systemctl daemon-reload && systemctl enable --now ai-proxy"

clean: ## remove what the other targets made
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
