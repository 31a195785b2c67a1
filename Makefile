# Everyday commands. CARGO_FLAGS goes to builds and tests, TEST_FLAGS to the cluster and engine tests.

SHELL := bash
.SHELLFLAGS := -o pipefail -c

TARGET := wasm32-unknown-unknown
CLUSTER_TESTS := --workspace --test cluster --test command --test load
FUZZ_SECONDS := 600

TARGET_DIR := $(abspath $(or $(CARGO_TARGET_DIR),target))
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)

.PHONY: help run test fuzz cluster-test hostile-test engine-test embedders dist component package soak bench cluster-bench engine-bench fmt lint deny setup

help: ## Show this
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'

run: setup ## Run the document's example as a process of this machine
	cargo build --workspace --bin hops
	"$(TARGET_DIR)/debug/hops" run --local=process tests/example.hops

# What the tests print is kept for the test `behaviour`, which checks that those ran that prove how calls end.
test: setup ## Run all tests that need no cluster
	cargo test --workspace $(CARGO_FLAGS) 2>&1 | tee "$(TARGET_DIR)/test.log"
	cargo test --workspace --test behaviour $(CARGO_FLAGS) -- --ignored without_a_cluster
	@echo
	@echo "skipped: $$(cargo test --quiet $(CLUSTER_TESTS) -- --ignored --list | grep -c ': test$$') cluster tests;" \
	  "'make cluster-test' runs them on the cluster in KUBECONFIG"
	@echo "skipped: $$(cargo test --quiet --workspace --test engine -- --ignored --list | grep -c ': test$$') engine tests;" \
	  "'make engine-test' runs them on the Docker or Podman in DOCKER_HOST"
	@echo "skipped: the vectors in other hosts; 'make embedders' runs them"

fuzz: setup ## Run the properties on random texts, statuses and files for FUZZ_SECONDS
	end=$$(( $$(date +%s) + $(FUZZ_SECONDS) )); while [ $$(date +%s) -lt $$end ]; do \
	  PROPTEST_CASES=2000 cargo test --workspace --lib --bins --test fuzz $(CARGO_FLAGS) || exit 1; done

# HOPS_TEST_CLUSTER_CTL names a program that stops and starts components of the cluster, HOPS_TEST_AUDIT_LOG the API
# server's audit log. Tests that need them are skipped without them, or fail if HOPS_TEST_CLUSTER=required.
cluster-test: setup ## Run the tests on the cluster in KUBECONFIG, in namespaces of their own
	cargo test $(CLUSTER_TESTS) --no-fail-fast $(CARGO_FLAGS) -- --include-ignored --test-threads 8 $(TEST_FLAGS) 2>&1 | \
	  tee "$(TARGET_DIR)/cluster-test.log"
	cargo test --workspace --test left_over $(CARGO_FLAGS) -- --include-ignored 2>&1 | tee -a "$(TARGET_DIR)/cluster-test.log"
	$(if $(TEST_FLAGS),,cargo test --workspace --test behaviour $(CARGO_FLAGS) -- --ignored on_a_cluster)

hostile-test: setup ## Run hostile containers on the cluster in KUBECONFIG, and print what each costs
	cargo test --workspace --test hostile_containers $(CARGO_FLAGS) -- --include-ignored --nocapture $(TEST_FLAGS)

engine-test: setup ## Run the tests on the Docker or Podman in DOCKER_HOST, or on the usual sockets
	cargo test --workspace --test engine $(CARGO_FLAGS) -- --include-ignored --test-threads 4 $(TEST_FLAGS)

embedders: setup ## Run the vectors in Rust, wasmtime, Python, Node and Go; with KUBECONFIG, their pods on the cluster
	cargo build --workspace --bin dist
	"$(TARGET_DIR)/debug/dist" "$(TARGET_DIR)/embedders"
	$(MAKE) --no-print-directory -C tests/embedders CARGO_TARGET_DIR="$(TARGET_DIR)" OUT="$(TARGET_DIR)/embedders"

dist: setup ## Put what is distributed into target/dist: hops, k8s.wasm, a bill of materials, manifests, checks for hosts
	cargo build --workspace --release --bin hops
	cargo build --workspace --bin dist
	rm -rf "$(TARGET_DIR)/dist"
	"$(TARGET_DIR)/debug/dist" "$(TARGET_DIR)/dist"
	cp "$(TARGET_DIR)/release/hops" "$(TARGET_DIR)/dist"
	@ls -l "$(TARGET_DIR)/dist"

component: setup ## Update host/k8s.wasm, the component that a published crate carries
	UPDATE_COMPONENT=1 cargo test --workspace --test contract the_packed_component $(CARGO_FLAGS)

# The library is built as its users build it: unpacked in an empty folder, offline, with no source of the plugin at hand.
package: export CARGO_TARGET_DIR := $(TARGET_DIR)/package-test
package: setup ## Pack both crates; build the packed library, its doctests and a program that uses it
	CARGO_TARGET_DIR="$(TARGET_DIR)" cargo package --locked -p hops-k8s -p hops $(PACKAGE_FLAGS)
	folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	  tar -xzf "$(TARGET_DIR)/package/hops-k8s-$(VERSION).crate" -C "$$folder" && cp -r tests/embedders/rust "$$folder" && \
	  cd "$$folder/hops-k8s-$(VERSION)" && cargo build --locked --offline && cargo test --doc --locked --offline && \
	  cd "$$folder/rust" && echo "[patch.crates-io]" >> Cargo.toml && \
	  echo "hops-k8s = { path = '../hops-k8s-$(VERSION)' }" >> Cargo.toml && cargo check

soak: setup ## Play the scenarios with a faulty API server 200 times, until one fails
	for i in $$(seq 200); do cargo test --quiet --workspace --test faults -- --test-threads 8 || exit 1; done

bench: setup ## Print the component's size, the time of instantiate + call, and a worker's memory
	cargo bench --workspace --bench plugin --bench worker

cluster-bench: setup ## Time calls on the cluster in KUBECONFIG beside bare pods
	cargo bench --workspace --bench cluster

engine-bench: setup ## Time calls on the Docker or Podman in DOCKER_HOST beside `docker run`
	cargo bench --workspace --bench engine

fmt: ## Format the sources
	cargo fmt --all

lint: setup ## Check formatting and run clippy
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

deny: ## Check dependencies for advisories, licenses and sources (needs cargo-deny)
	cargo deny check

setup:
	@command -v cargo >/dev/null || { echo "Rust is missing: install it as https://rustup.rs says" >&2; exit 1; }
	@mkdir -p "$(TARGET_DIR)"
	@test -d "$$(rustc --print target-libdir --target $(TARGET))" || rustup target add $(TARGET)
