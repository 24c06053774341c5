#!/usr/bin/env bash
# Runs the order example on a Kubernetes cluster and checks what comes out of it.
#   scripts/cluster_demo.sh            on a cluster of this machine (testbed/cluster), started for it and ended after it
#   KUBECONFIG=FILE scripts/cluster_demo.sh [up|run|down...]
#                                      on the cluster that KUBECONFIG names, or only these steps of it. Its nodes must be able to get the
#                                      images: REGISTRY=registry.example.com/team names where k8s/images/Dockerfile's were pushed to, TAG
#                                      their tag
# KEEP=1 leaves it running.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=/dev/null
source .tools/env

begin=$SECONDS
if [[ -n ${KEEP:-} && $# == 0 ]]; then set -- up run; fi
target=$(cargo metadata --format-version 1 --no-deps --offline |
    "$PYTHON" -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
# scripts/images.sh builds it with the rest.
programs=$target/$(rustc -vV | awk '$1 == "host:" { print $2 }')/release
if [[ -n ${KUBECONFIG:-} ]]; then
    echo "cluster-demo: building tidemill (release; some minutes the first time)"
    cargo build --quiet --release --locked -p tidemill-cli
    programs=$target/release
fi
if [[ -z ${KUBECONFIG:-} ]]; then
    scripts/cluster.sh up
    [[ -n ${KEEP:-} ]] || trap 'scripts/cluster.sh down' EXIT
    KUBECONFIG=$(<.tools/cluster/kubeconfig)
    export KUBECONFIG PATH=$TIDEMILL_KUBERNETES:$PATH
fi
"$PYTHON" scripts/cluster_demo.py --programs "$programs" "$@"
echo "cluster-demo: $((SECONDS - begin)) s in all"
