# The only entry: `make demo` shows what it does, `make test` proves that it does. Both install what is missing.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo shop shop-local shop-build shop-test bench bench-quick bench-peers bench-tools peers compare chaos soak mixed-soak fuzz test sdk-test sdk-js sdk-python model sim lint docs book deny fix tools redis postgres servers clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | column -ts $$'\t'

demo: redis ## build, start three Redis servers, move money, kill processes, audit
	cargo build --profile demo --locked --no-default-features -p assent -p assent-lab
	./target/demo/assent-lab demo

# How many customers want how many lamps; SEED as below, by chance if it is not said. SHOP_KEEP=1 leaves the shop open.
SHOP_CUSTOMERS ?= 200
SHOP_ITEMS ?= 50
SHOP_ARGS = --customers $(SHOP_CUSTOMERS) --items $(SHOP_ITEMS) $(if $(filter command line environment,$(origin SEED)),--seed $(SEED)) \
	$(if $(SHOP_KEEP),--keep) $(if $(SHOP_PORT),--port $(SHOP_PORT))

shop: ## a shop of three services in containers: 200 customers buy the last 50 lamps while each is killed; needs Docker
	@./deploy/install-python.sh
	@./examples/shop/docker.sh $(SHOP_ARGS)

shop-local: redis postgres shop-build ## the same shop as processes of this machine, without Docker
	@./deploy/install-python.sh
	@./deploy/install-node.sh --without-tsc
	@./examples/shop/run.sh $(SHOP_ARGS)

shop-build:
	cargo build --profile demo --locked --no-default-features -p assent -p assent-shop-payments

bench: bench-tools peers ## everything against its floors and its peers, in one run: about 12 minutes; writes docs/reference/performance.md
	@./target/release/assent-lab suite

bench-quick: redis ## transfers against their floors, one minute
	cargo build --release --locked -p assent -p assent-lab
	@./target/release/assent-lab bench transfer --clients 1,64 --ack applied,decided --seconds 2

bench-peers: bench-tools peers ## transfers against PostgreSQL 2PC, MariaDB XA and dtmrs; some minutes
	@./target/release/assent-lab peers

bench-tools: redis
	cargo build --release --locked -p assent -p assent-lab

peers: ## install what the bench compares with, as far as it can be had
	@./lab/install-peers.sh

compare: redis ## try the claims of docs/compare.md on real servers: PostgreSQL, MariaDB, Redis, Assent
	cargo build --release --locked -p assent
	@ASSENT_BIN=$(CURDIR)/target/release/assent ./docs/compare/experiments.sh

# How long make chaos breaks things, in seconds, by which seed, and which kinds of faults (all that are safe).
TIME ?= 60
SEED ?= 1
FAULTS ?=

chaos: ## break a compose deployment for TIME seconds by SEED, and check what its clients were told; needs Docker
	cargo build --release --locked -p assent -p assent-chaos
	./deploy/chaos-images.sh
	@./target/release/assent-chaos run --seed $(SEED) --seconds $(TIME) $(if $(FAULTS),--faults $(FAULTS))

# Runs on each server, the seed of the first one, and how long each breaks things.
SOAK_RUNS ?= 3
SOAK_SECONDS ?= 30

soak: servers ## lose data again and again under load on each server, SOAK_RUNS times, and check what the clients were told
	cargo build --release --locked -p assent
	cargo run --profile sim --locked --quiet -p assent-tests --bin assent-soak -- \
		--seed $(SEED) --runs $(SOAK_RUNS) --seconds $(SOAK_SECONDS)

mixed-soak: servers ## Redis and PostgreSQL in one history while every process is killed, SOAK_RUNS times; prints each run
	cargo build --release --locked -p assent
	cargo run --profile sim --locked --quiet -p assent-tests --bin assent-mixed-soak -- \
		--seed $(SEED) --runs $(SOAK_RUNS) --seconds $(SOAK_SECONDS)

# How many cases make fuzz draws on each server, and by which seed.
FUZZ_CASES ?= 5000
FUZZ_SEED ?= $(shell echo $$RANDOM)

fuzz: servers ## random branches against the same commands on plain Redis, on each server, FUZZ_CASES each
	@echo "seed $(FUZZ_SEED)"
	@for server in redis-6.2 redis-7.0 redis-8.2 valkey-9.1; do \
		ASSENT_TEST_SERVER=$$server PROPTEST_RNG_SEED=$(FUZZ_SEED) PROPTEST_CASES=$(FUZZ_CASES) \
		cargo nextest run --workspace --locked -E "(binary(scripts) + binary(store)) & test(/^differential::/)" || exit; \
	done

test: servers tools lint ## everything CI runs
	cargo nextest run --workspace --locked
	@./tests/on-servers.sh
	cargo test --workspace --locked --doc --quiet
	$(MAKE) --no-print-directory sdk-test docs deny

sdk-test: sdk-js sdk-python shop-test ## the SDKs and the shop, against a live coordinator

sdk-js: redis
	@./deploy/install-node.sh
	cargo build --locked -p assent
	@./sdk/js/check.sh

sdk-python: redis
	@./deploy/install-python.sh
	cargo build --locked -p assent
	@./sdk/python/check.sh

shop-test: redis postgres
	@./deploy/install-python.sh
	@./deploy/install-node.sh --without-tsc
	cargo build --locked -p assent -p assent-shop-payments
	@./examples/shop/check.sh

model: ## the model checker's larger worlds, some minutes
	ASSENT_MODEL_LARGE=1 cargo test -p assent-model --locked -- --test-threads 1

SIM_SEED ?= 1
SIM_WORLDS ?= 2500
sim: ## a long run of the simulator: more than a million transactions, some minutes of one core
	cargo run --profile sim --locked --quiet -p assent-sim -- --seed $(SIM_SEED) --iterations $(SIM_WORLDS)

lint: ## formatting and clippy, warnings are errors
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

docs: book ## the book (target/book) and the documentation of the code; broken links are errors
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --quiet

# The links of the pages are checked by a test (tests/it/doc_links.rs), with or without mdbook.
book:
	@./deploy/install-mdbook.sh
	@if [ -x target/tools/bin/mdbook ]; then target/tools/bin/mdbook build docs; fi

deny: ## licences, bans and sources of dependencies, where cargo-deny is installed
	@if command -v cargo-deny >/dev/null; then cargo fetch --locked --quiet && cargo deny --offline --log-level error check bans licenses sources; \
	else echo "cargo-deny is not installed; skipped (cargo install --locked cargo-deny)"; fi

fix: ## rewrite formatting and the generated files: OpenAPI, error codes, CLI help, types of sdk/js
	cargo fmt --all
	UPDATE=1 cargo nextest run --workspace --locked -E 'test(is_current) + test(committed) + test(contract)' --no-fail-fast
	@if command -v tsc >/dev/null; then tsc -p sdk/js; fi

redis: ## install redis-server by the system's package manager, if it is missing
	@./deploy/install-redis.sh

postgres: ## install PostgreSQL by the system's package manager, if it is missing
	@./deploy/install-postgres.sh

servers: postgres ## install the servers that the tests run on beside each other, into target/servers
	@./deploy/install-servers.sh

tools: ## install cargo-nextest, if it is missing
	@command -v cargo-nextest >/dev/null || cargo install --locked cargo-nextest

clean:
	cargo clean
