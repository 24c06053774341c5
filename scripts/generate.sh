#!/usr/bin/env bash
# Writes all generated files anew. CI runs this and fails if anything changes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The three CustomResourceDefinitions, from the Rust types.
cargo run --quiet --locked -p tidemill-crds --bin crdgen
