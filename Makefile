# What one does with a clone. `make help` lists it.

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)

# rustup's place, for shells that have not been started anew since it was installed
export PATH := $(PATH):$(HOME)/.cargo/bin

.DEFAULT_GOAL := help
.PHONY: demo test bench soak fuzz lint docs help cargo

demo: cargo ## start the gateway with a private PostgreSQL and demo data; pass flags by ARGS="--events 100000"
	@docker/standin/install.sh --compiler
	@$(CARGO) build --release --bin tollgate
	@exec "$(TARGET)/release/tollgate" demo $(ARGS)

test: cargo ## install what the tests need, check format and lints, run every test
	@tests/install.sh
	@$(CARGO) fmt --check
	@$(CARGO) clippy --all-targets -- -D warnings
	@$(CARGO) test

bench: cargo ## compare with PgBouncer and with PostgreSQL itself, side by side; pass flags by ARGS="--help"
	@docker/standin/install.sh --compiler --pgbouncer
	@docker/standin/install.sh --haproxy --pgpool || echo 'what is missing is left out of the comparison' >&2
	@$(CARGO) bench --bench analyze
	@$(CARGO) bench --bench side_by_side -- $(ARGS)

soak: cargo ## let mixed clients and a failing network at it for a while: MINUTES=5
	@docker/standin/install.sh --compiler
	@MINUTES=$(or $(MINUTES),5) $(CARGO) test --test soak -- --ignored --nocapture

fuzz: cargo ## fuzz with cargo-fuzz what reads bytes of others, one target after the other: SECONDS=60 each
	@$(CARGO) fuzz --version >/dev/null || { echo 'cargo-fuzz is missing: cargo install cargo-fuzz' >&2; exit 1; }
	@for target in startup frames login replies analyser; do \
		RUSTC_BOOTSTRAP=1 $(CARGO) fuzz run --sanitizer none $$target -- \
			-max_total_time=$(or $(SECONDS),60) -max_len=2048 -timeout=10 || exit 1; \
	done

lint: cargo ## check format and lints
	@$(CARGO) fmt --check
	@$(CARGO) clippy --all-targets -- -D warnings

docs: cargo ## write the generated pages of docs/reference and the reference config anew
	@UPDATE_DOCS=1 $(CARGO) test --quiet --lib --test config

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

cargo:
	@command -v $(CARGO) >/dev/null || { echo 'Rust is missing: cargo is not in PATH. Install Rust with rustup and run make again.' >&2; exit 1; }
