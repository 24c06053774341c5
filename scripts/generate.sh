#!/usr/bin/env bash
# Writes all generated files anew. CI runs this and fails if anything changes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The three CustomResourceDefinitions, from the Rust types.
cargo run --quiet --locked -p tidemill-crds --bin crdgen

# The fault matrix of the order example, from the test that runs it.
TIDEMILL_GENERATE=1 cargo test --quiet --locked -p tidemill-testbed --test fault_matrix >/dev/null
