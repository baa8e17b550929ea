# pyro: everything a person runs. `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

ENVIRONMENT ?= debian:12
# What the guest-backed tests boot.
TEST_ENVIRONMENTS ?= debian:12 debian:12-base debian:13-base
# How often `make test-kills` kills.
KILLS ?= 200
# What the stories boot, and flags such as `--via cli` or `--jobs 2`.
USE_CASE_ENVIRONMENT ?= debian:12
USE_CASE_SMOKE_FLAGS ?=
STORIES := cold-start-validation repro-fix-loop parallel-workspaces untrusted-inspection review-eval
CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
BIN := $(TARGET)/x86_64-unknown-linux-gnu/release
SMOKE := $(BIN)/pyro-smoke

# Debian packages that the targets below need, each with a file that shows it is there.
PACKAGES := \
	gcc:/usr/bin/gcc \
	libc6-dev:/usr/lib/x86_64-linux-gnu/libc.a \
	mmdebstrap:/usr/bin/mmdebstrap \
	qemu-system-x86:/usr/bin/qemu-system-x86_64 \
	e2fsprogs:/sbin/mke2fs \
	fuse3:/usr/bin/fusermount3 \
	git:/usr/bin/git \
	stress-ng:/usr/bin/stress-ng \
	$(if $(filter 0,$(shell id -u)),,uidmap:/usr/bin/newuidmap)
MISSING := $(strip $(foreach p,$(PACKAGES),$(if $(wildcard $(lastword $(subst :, ,$(p)))),,$(firstword $(subst :, ,$(p))))))
AS_ROOT := $(if $(filter 0,$(shell id -u)),,sudo)

##@ Main

.PHONY: run
run: build ## Boot a Debian guest in our own monitor and run a command in it
	@$(BIN)/pyro env pull $(ENVIRONMENT)
	@$(SMOKE) run -- $(BIN)/pyro demo $(ENVIRONMENT)

.PHONY: test
test: build check-fast test-unit test-guest smoke-use-cases test-host ## All tests; guest-backed ones on hardware KVM or in the emulated host

.PHONY: bench
bench: build ## Cold boot, exec, memory and sizes in deterministic virtual time; layers in real time
	@$(BIN)/pyro env pull debian:12
	@$(SMOKE) bench
	@rm -rf $(TARGET)/bench-layers
	@$(BIN)/pyro-rootfs bench $(TARGET)/bench-layers
	@rm -rf $(TARGET)/bench-layers

.PHONY: build
build: deps ## Release binaries
	@$(CARGO) build --release --locked --workspace

##@ Parts

.PHONY: help
help: ## This list
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: deps
deps: ## Install missing Debian packages (asks sudo when not root)
ifneq ($(MISSING),)
	@echo "make: installing $(MISSING)"
	@$(AS_ROOT) apt-get update -qq
	@$(AS_ROOT) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(MISSING) >/dev/null
endif

.PHONY: check check-fast
check: check-fast ## Format, lints and documentation
	@$(CARGO) doc --locked --workspace --no-deps --quiet
check-fast:
	@$(CARGO) fmt --all --check
	@$(CARGO) clippy --locked --workspace --all-targets --quiet -- -D warnings

.PHONY: test-unit
test-unit: build ## Tests that need no guest
	@$(CARGO) test --locked --workspace

.PHONY: test-guest
test-guest: build ## Tests on real guests: hardware KVM, or the emulated host
	@for environment in $(TEST_ENVIRONMENTS); do $(BIN)/pyro env pull $$environment; done
	@PYRO_BIN=$(BIN)/pyro PYRO_HOST_NAME=test \
		CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="$(SMOKE) run --" \
		timeout --foreground --kill-after 30 3600 \
		$(CARGO) test --locked --package pyro-smoke --test guest
	@PYRO_HOST_NAME=test $(SMOKE) host stop >/dev/null 2>&1 || true

.PHONY: test-kills
test-kills: build ## KILLS (200) times kill -9 of daemon and monitors under load; nothing is lost or left
	@$(BIN)/pyro env pull debian:12-base
	@PYRO_TEST_KILLS=$(KILLS) PYRO_BIN=$(BIN)/pyro PYRO_HOST_NAME=kills \
		CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="$(SMOKE) run --" \
		$(CARGO) test --locked --package pyro-smoke --test guest -- --exact kills_at_random_points_lose_and_leave_nothing
	@PYRO_HOST_NAME=kills $(SMOKE) host stop >/dev/null 2>&1 || true

.PHONY: test-host
test-host: build ## Tests of the emulated host itself
	@PYRO_TEST_HOST=1 $(CARGO) test --locked --package pyro-smoke --test host

##@ Stories: the recipe pages, played against real guests

# Where a story that fails is kept by whoever played it, which may be the emulated host; then it is copied here.
KEPT := /var/tmp/pyro-stories
define play
	@$(BIN)/pyro env pull $(USE_CASE_ENVIRONMENT)
	@export PYRO_BIN=$(BIN)/pyro PYRO_HOST_NAME=stories; status=0; \
	$(SMOKE) run -- $(SMOKE) story $(1) --environment $(USE_CASE_ENVIRONMENT) --keep $(KEPT) $(USE_CASE_SMOKE_FLAGS) || { status=$$?; \
		mkdir -p $(TARGET)/stories; $(SMOKE) run -- tar -C $(KEPT) -c . | tar -C $(TARGET)/stories -x; echo "kept in $(TARGET)/stories"; }; \
	$(SMOKE) host stop >/dev/null 2>&1 || true; exit $$status
endef

.PHONY: smoke-use-cases
smoke-use-cases: build ## All five, through MCP; smoke-repro-fix-loop and so on play one; USE_CASE_SMOKE_FLAGS='--via cli'
	$(call play,)

.PHONY: $(STORIES:%=smoke-%)
$(STORIES:%=smoke-%): smoke-%: build
	$(call play,$*)

##@ Documentation and release

MDBOOK := $(TARGET)/tools/bin/mdbook
$(MDBOOK): | deps
	@$(CARGO) install --quiet --locked --debug --no-default-features --features search \
		--version 0.5.4 --root $(TARGET)/tools mdbook

.PHONY: book
book: $(MDBOOK) ## The pages as a book, in target/book
	@smoke/dist/book.sh $(MDBOOK) $(TARGET)/book

.PHONY: dist
dist: build ## The archive that a user installs, in target/dist
	@smoke/dist/pack.sh $(BIN) $(TARGET)/dist

.PHONY: dist-check
dist-check: dist ## Install it into a clean Debian; run doctor, demo, the walkthrough and a story there
	@$(BIN)/pyro env pull debian:12
	@smoke/dist/debian.sh $(TARGET)/dist/debian.tar
	@status=0; PYRO_HOST_NAME=dist $(SMOKE) run -- smoke/dist/check.sh $(SMOKE) $(TARGET)/dist || status=$$?; \
	PYRO_HOST_NAME=dist $(SMOKE) host stop >/dev/null 2>&1 || true; exit $$status

##@ Emulated KVM host (for machines whose own KVM cannot run a stock guest)

$(SMOKE): deps
	@$(CARGO) build --release --locked --quiet --package pyro-smoke

.PHONY: host
host: $(SMOKE) ## Start it and keep it for further commands
	@$(SMOKE) host start

.PHONY: host-shell
host-shell: $(SMOKE) ## Open a shell in it
	@$(SMOKE) host shell

.PHONY: host-status
host-status: $(SMOKE) ## Say whether it runs
	@$(SMOKE) host status || true

.PHONY: host-stop
host-stop: $(SMOKE) ## Stop it
	@$(SMOKE) host stop
