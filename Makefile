# The one entry for people. `make` alone lists what there is.

COMPOSE := $(shell docker compose version >/dev/null 2>&1 && echo docker compose || echo docker-compose)
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
IMAGES := balancer server analysis
SECONDS ?= 20
MINUTES ?= 10
SEED ?= 1
RUNTIME ?= process

.PHONY: help run demo test check lint docs deny experiment bench placements chaos fuzz images clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## the balancer with three replicas on 127.0.0.1:5000, without Docker
	cargo run --release --locked -p balancer

demo: ## the same with containers: docker compose up --build
	$(COMPOSE) up --build

# Docker tests need an engine and the image ring-balancer/server (make images); where one is
# missing they say so and are skipped, except with CI=true.
test: ## build what the tests need and run all of them
	cargo build --workspace --locked
	cargo test --workspace --locked

check: lint test docs deny ## the gate before a commit: lint, test, docs, deny

lint: ## formatting, clippy without a warning, the borders inside the balancer
	cargo fmt --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	.ci/purity

docs: ## the API documentation, without a warning
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

deny: ## licences, banned crates and sources of the dependencies
	@if cargo deny --version >/dev/null 2>&1; then \
		echo cargo deny check bans licenses sources; \
		cargo deny check bans licenses sources; \
	else \
		echo "deny: skipped, cargo-deny is not installed (cargo install cargo-deny --locked)"; \
	fi

experiment: ## every experiment again, with its charts, into report/
	cargo build --workspace --release --locked
	$(TARGET_DIR)/release/analysis all --out report

bench: ## the figures for speed and memory, then the same beside nginx and HAProxy
	cargo build --workspace --release --locked
	$(TARGET_DIR)/release/analysis bench
	$(TARGET_DIR)/release/analysis proxies

# The others are in a workspace of their own: nobody who builds the balancer builds them, too.
placements: ## the placements beside other crates that do the same, in turns: look-ups, builds, memory
	cargo build --release --locked --manifest-path peers/Cargo.toml --target-dir $(TARGET_DIR)/peers
	$(TARGET_DIR)/peers/release/peers --out report/placements.md

chaos: ## faults at random under load; MINUTES=10 SEED=1 RUNTIME=process (or docker)
	cargo build --workspace --release --locked
	$(TARGET_DIR)/release/analysis chaos --minutes $(MINUTES) --seed $(SEED) --runtime $(RUNTIME)

# The compiler is the stable one: RUSTC_BOOTSTRAP lets it take the flags that count coverage. No
# sanitizer: the balancer has no unsafe code, and without one more is tried. New inputs go to
# fuzz/corpus, one that fails to fuzz/artifacts.
fuzz: ## what reads and writes HTTP/1.1 against random bytes; SECONDS=20 for each target
	@if ! cargo fuzz --version >/dev/null 2>&1; then \
		echo "fuzz: skipped, cargo-fuzz is not installed (cargo install cargo-fuzz --locked)"; \
		[ "$$CI" != true ] || exit 1; \
	else \
		for target in $$(cargo fuzz list); do \
			echo "fuzz: $$target, $(SECONDS) s"; \
			mkdir -p "fuzz/corpus/$$target"; \
			RUSTC_BOOTSTRAP=1 cargo fuzz run --sanitizer none "$$target" \
				"fuzz/corpus/$$target" "fuzz/seeds/$$target" -- -dict=fuzz/http.dict \
				-timeout=10 -verbosity=0 -print_final_stats=1 -max_total_time=$(SECONDS) || exit 1; \
		done; \
	fi

images: ## the images ring-balancer/balancer, /server and /analysis
	for image in $(IMAGES); do \
		docker build --target $$image --tag ring-balancer/$$image . || exit 1; \
	done

clean: ## remove what cargo built
	cargo clean
