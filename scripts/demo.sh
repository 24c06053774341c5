#!/usr/bin/env bash
# Runs the order example on this machine and checks what comes out of it. KEEP=1 leaves it running to look at.
# Everything of a run is in .tidemill/demo; the next run begins anew.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=/dev/null
source .tools/env

begin=$(date +%s)
echo "demo: building tidemill and the inventory service (release; some minutes the first time)"
cargo build --release --locked -p tidemill-cli -p inventory
target=$(cargo metadata --format-version 1 --no-deps --offline |
    "$PYTHON" -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
exec "$PYTHON" scripts/demo.py --programs "$target/release" --begin "$begin" ${KEEP:+--keep}
