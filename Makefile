# `make test` and `make demo` do all their set-up on a machine that has Rust (rustup), Go and Python 3.

SHELL := bash

.PHONY: help demo test tools kubernetes kubernetes-node images cluster-up cluster-down cluster-demo cluster-demo-down lint generate bench-saga bench-projection bench-operator deny

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-18s %s\n", $$1, $$2 }' Makefile

demo: tools ## runs the order example and checks what comes out (KEEP=1 leaves it running)
	@scripts/demo.sh

test: tools kubernetes-node ## every test there is
	@scripts/test.sh

tools: ## gets nats-server and the Python packages, into this folder only
	@scripts/tools.sh

kubernetes: tools ## builds a real Kubernetes for the tests, once
	@scripts/kubernetes.sh

kubernetes-node: tools ## the same with a node that runs pods (Linux, root), once
	@scripts/kubernetes.sh node

images: tools ## writes Tidemill's images to .tools/images, without a container engine
	@scripts/images.sh

# Arguments: make cluster-up ARGS="image.tar", archives of further images that it takes in.
cluster-up: kubernetes-node images ## a Kubernetes with one node on this machine, with Tidemill's images, until `make cluster-down`
	@scripts/cluster.sh up $(ARGS)

cluster-down: ## ends it
	@scripts/cluster.sh down

# On this machine, or with KUBECONFIG=FILE REGISTRY=NAME on a cluster that has Tidemill's images from that registry.
ifdef KUBECONFIG
cluster-demo: tools ## the order example on a cluster, with the check of what comes out (KEEP=1 leaves it running)
	@scripts/cluster_demo.sh
else
cluster-demo: kubernetes-node images
	@scripts/cluster_demo.sh
endif

cluster-demo-down: tools ## takes away what a cluster-demo left on the cluster that KUBECONFIG names
	@scripts/cluster_demo.sh down

lint: ## formatting and clippy, as CI checks them
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

generate: kubernetes ## writes the generated files anew
	@scripts/generate.sh

deny: ## licences, sources and duplicates of what is linked in
	@scripts/tools.sh --deny
	.tools/bin/cargo-deny --locked check --hide-inclusion-graph bans licenses sources

# Arguments: make bench-saga ARGS="--in-flight 64"
bench-saga: tools ## load on the saga engine; figures as JSON on the last line
	@source .tools/env && cargo build --quiet --release --locked -p tidemill-worker -p tidemill-bench && TIDEMILL_BIN_DIR=target/release target/release/bench-saga $(ARGS)

bench-projection: tools ## load on the projection engine; figures as JSON on the last line
	@source .tools/env && cargo build --quiet --release --locked -p tidemill-worker -p tidemill-bench && TIDEMILL_BIN_DIR=target/release target/release/bench-projection $(ARGS)

bench-operator: tools kubernetes ## an operator with 1,000 streams; figures as JSON on the last line
	@source .tools/env && cargo build --quiet --release --locked -p tidemill-operator -p tidemill-bench && TIDEMILL_BIN_DIR=target/release target/release/bench-operator $(ARGS)
