#!/usr/bin/env bash
# Builds Tidemill's programs as static binaries and writes the images to .tools/images as archives, without a container engine:
# tidemill-operator, tidemill-worker, nats, and tidemill-orders with the participants of the order example. For registries, and for
# machines with a container engine, there is k8s/images/Dockerfile.
#   scripts/images.sh [TAG]    default: the version of the workspace
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=/dev/null
source .tools/env

# Linked to nothing of this machine, so an image needs nothing but the program. Names of functions are half of its size, and panics say
# file and line without them.
export RUSTFLAGS="-C target-feature=+crt-static" CARGO_PROFILE_RELEASE_STRIP=symbols
host=$(rustc -vV | awk '$1 == "host:" { print $2 }')
tag=${1:-$(awk -F '"' '/^version = / { print $2; exit }' Cargo.toml)}

echo "images: building the programs (release; some minutes the first time)"
cargo build --quiet --locked --release --target "$host" -p tidemill-operator -p tidemill-worker -p tidemill-cli -p inventory
unset RUSTFLAGS CARGO_PROFILE_RELEASE_STRIP
cargo build --quiet --locked -p tidemill-testbed-cluster --bin tidemill-images
target=$(cargo metadata --format-version 1 --no-deps --offline |
    "$PYTHON" -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
"$target/debug/tidemill-images" "$target/$host/release" "$tag" .tools/images | while read -r archive; do
    bytes=$(stat -c %s "$archive")
    printf 'images: %6.1f MB  %s\n' "$(awk "BEGIN { print $bytes / 1e6 }")" "$archive"
    # What the worker and the operator may have at most.
    if [[ $archive =~ tidemill-(operator|worker) ]] && ((bytes > 20000000)); then
        echo "images: $archive is larger than 20 MB" >&2
        exit 1
    fi
done
