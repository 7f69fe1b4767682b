# Each target does its own set-up and says what it does.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

.PHONY: help performance venv venv-dev venv-bench venv-fuzz venv-mutation lock sbom demo recording demo-console console-pictures test test-kernel61 test-mutants faults chaos fuzz mutation e2e bench deb minidomain lint clean

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

venv: $(VENV)/.runtime ## .venv with brokerd, broker-agent, broker-store and brokerctl

venv-dev: $(VENV)/.dev

venv-bench: $(VENV)/.bench

venv-fuzz: $(VENV)/.fuzz

venv-mutation: $(VENV)/.mutation

# What is installed is what requirements/*.lock names, by version and hash; then the project itself.
PIP := $(BIN)/pip --quiet --disable-pip-version-check
LOCKED := $(PIP) install --no-deps --require-hashes -r requirements

$(VENV)/.runtime: setup.cfg pyproject.toml requirements/build.lock requirements/runtime.lock
	@echo "venv: installing the runtime into $(VENV)/"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(LOCKED)/build.lock
	@$(LOCKED)/runtime.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.runtime requirements/dev.lock
	@echo "venv: adding the test and lint tools"
	@$(LOCKED)/dev.lock
	@touch $@

$(VENV)/.bench: $(VENV)/.dev requirements/bench.lock
	@echo "venv: adding the peers that the benchmarks run beside"
	@$(LOCKED)/bench.lock
	@touch $@

$(VENV)/.fuzz: $(VENV)/.dev requirements/fuzz.lock
	@echo "venv: adding the fuzzer"
	@$(LOCKED)/fuzz.lock
	@touch $@

$(VENV)/.mutation: $(VENV)/.dev requirements/mutation.lock
	@echo "venv: adding mutmut"
	@$(LOCKED)/mutation.lock
	@touch $@

lock: venv-dev ## requirements/*.lock anew, after a change of setup.cfg: every package by version and hash
	@$(BIN)/python -m tools.lock

demo: venv ## the main job on the embedded store, in about ten seconds
	@$(BIN)/python -m broker.sim.demo

recording: venv ## the demo in a terminal, recorded into docs/images/demo.cast and demo.svg
	@$(BIN)/python -m tools.recording

demo-console: venv ## 50 simulated domains to look at in the web console: make demo-console [PORT=7443] [DOMAINS=50]
	@$(BIN)/python -m broker.sim.console $(if $(PORT),--port $(PORT)) $(if $(DOMAINS),--domains $(DOMAINS))

console-pictures: ## the console's pictures in docs/images/, by headless Chromium (root)
	@tools/setup-debian pictures
	@$(MAKE) --no-print-directory venv-dev
	@$(BIN)/python -m tools.console

test: ## all tests, on both real xenstored daemons and the embedded store: make test [JOBS=n] (root)
	@tools/setup-debian test
	@$(MAKE) --no-print-directory venv-dev
	@$(BIN)/pytest --numprocesses $(or $(JOBS),auto) --maxprocesses 4 --dist loadfile

test-kernel61: ## labels on bridges again, on Debian's 6.1 kernel, in QEMU: make test-kernel61 [SHORT=1] (root)
	@tools/setup-debian kernel61
	@$(MAKE) --no-print-directory venv-dev
	@tools/testbed/kernel61/run $(if $(SHORT),short)

test-mutants: ## every rule of the kernel's tables changed, one at a time: a test must fail (root)
	@tools/setup-debian test
	@$(MAKE) --no-print-directory venv-dev
	@tools/mutants/run

faults: venv-dev ## faults in every order, against what must hold: make faults [SEQUENCES=10000] [SEED=1]
	@$(BIN)/python -m tools.faults $(or $(SEQUENCES),10000) $(if $(SEED),--seed $(SEED))

chaos: ## kill -9 of the real processes, on each store: make chaos [KILLS=1000] [STORE=C] [SEED=n] (root)
	@tools/setup-debian test
	@$(MAKE) --no-print-directory venv-dev
	@$(BIN)/python -m tools.chaos $(if $(KILLS),--kills $(KILLS)) $(if $(STORE),--store $(STORE)) $(if $(SEED),--seed $(SEED))

fuzz: venv-fuzz ## every parser, ring validator and monitor: make fuzz [TIME=seconds for each] [ONLY=name]
	@$(BIN)/python -m tools.fuzz $(if $(TIME),--seconds $(TIME)) $(if $(ONLY),--only $(ONLY))

mutation: venv-mutation ## every change of a pure file that no test notices: make mutation ONLY=broker/core/record.py
	@$(BIN)/python -m tools.mutation $(or $(ONLY),broker/core/record.py)

lint: venv-dev ## ruff, mypy strict, import-linter
	@$(BIN)/ruff check --config etc/ruff.toml broker tests tools
	@$(BIN)/ruff format --config etc/ruff.toml --check broker tests tools
	@$(BIN)/mypy
	@$(BIN)/lint-imports --config setup.cfg

bench: ## floors and ratios, measured in one run: make bench [ONLY=name]
	@tools/setup-debian bench
	@$(MAKE) --no-print-directory venv-bench
	@$(BIN)/python -m tools.bench $(if $(ONLY),--only $(ONLY))

performance: ## every bench, and docs/performance.md of them: some twenty minutes of a quiet machine (root)
	@$(MAKE) --no-print-directory bench
	@$(BIN)/python -m tools.bench.page

deb: ## Debian packages for bookworm, in build/ (root)
	@tools/setup-debian deb
	@tools/debian/build

minidomain: deb venv ## the security domain's initramfs: make minidomain [POLICY=FILE] [PKI=DIR] (root)
	@tools/setup-debian minidomain
	@tools/minidomain/make $(or $(POLICY),etc/policy.yaml) $(or $(PKI),build/minidomain/pki)

sbom: minidomain ## bills of materials (CycloneDX), of the programs and of the mini-domain, in build/ (root)
	@ls build/*.cdx.json

e2e: ## the scenarios on real Xen, in QEMU without KVM: make e2e [SCENARIO=name] [MACHINES=n] (root)
	@tools/setup-debian e2e
	@$(MAKE) --no-print-directory venv
	@$(BIN)/python -m tools.testbed run $(SCENARIO) $(if $(MACHINES),--machines $(MACHINES))

testbed-shell: ## a shell in dom0 of that machine, with broker and agent at work (root)
	@tools/setup-debian e2e
	@$(MAKE) --no-print-directory venv
	@$(BIN)/python -m tools.testbed shell

clean:
	rm -rf $(VENV) build
