#!/usr/bin/env bash
# A Kubernetes with one node on this machine, in a network of its own (testbed/cluster), for trying things out.
#   scripts/cluster.sh up [IMAGE.tar...]   starts it, with these images and those of .tools/images taken in, and says how it is reached
#   scripts/cluster.sh down                ends it; nothing is left of it
# Its process id, kubeconfig path and messages are in .tools/cluster.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

folder=.tools/cluster

say() { printf 'cluster: %s\n' "$*"; }
die() {
    printf 'cluster: %s\n' "$*" >&2
    exit 1
}

# Whether it runs. The name is looked at too: the number may be another program's by now.
runs() {
    [[ -f $folder/pid ]] && [[ $(ps -o comm= -p "$(<$folder/pid)" 2>/dev/null) == tidemill-cluste* ]]
}

up() {
    # shellcheck source=/dev/null
    source .tools/env
    if runs; then die "it runs already; export KUBECONFIG=$(<$folder/kubeconfig)"; fi
    cargo build --quiet --locked -p tidemill-testbed-cluster --bin tidemill-cluster
    cargo build --quiet --locked -p tidemill-cli
    local target
    target=$(cargo metadata --format-version 1 --no-deps --offline |
        "$PYTHON" -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
    rm -rf $folder
    mkdir -p $folder
    # Of a session of its own: it stays when this terminal goes.
    shopt -s nullglob
    setsid "$target/debug/tidemill-cluster" .tools/images/*.tar "$@" >$folder/kubeconfig 2>$folder/messages </dev/null &
    echo $! >$folder/pid
    until [[ -s $folder/kubeconfig ]]; do
        runs || die "it can't be started: $(<$folder/messages)"
        sleep 0.2
    done
    # The command, and as one of kubectl's.
    mkdir -p $folder/bin
    ln -s "$target/debug/tidemill" $folder/bin/tidemill
    ln -s "$target/debug/tidemill" $folder/bin/kubectl-tidemill
    say "it runs. To use it, with kubectl, helm, tidemill and \`kubectl tidemill\`:"
    printf 'export KUBECONFIG=%q PATH=%q:%q:$PATH\n' "$(<$folder/kubeconfig)" "$PWD/$folder/bin" "$TIDEMILL_KUBERNETES"
}

down() {
    if runs; then
        kill "$(<$folder/pid)"
        while runs; do sleep 0.1; done
        say "it is gone"
    else
        say "none runs"
    fi
    rm -rf $folder
}

case ${1:-} in
up) shift && up "$@" ;;
down) down ;;
*) die "'up' or 'down'" ;;
esac
