#!/usr/bin/env bash
# Gets what tests and demo need besides Rust, and writes where it is to .tools/env:
#   nats-server >= 2.15.2   the one named, of PATH or of Go's bin folder; else built by Go into .tools/bin
#   Python with nats-py     a virtual environment in .venv; without venv, packages in .tools/python
#   cargo-deny              only with --deny, into .tools/bin
# Nothing is installed outside of this folder. What is there already is kept, so it is quick from the second time on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD

nats_version=2.15.2
deny_version=0.20.2
requirements=k8s/examples/orders/payments/requirements.txt

say() { printf 'tools: %s\n' "$*"; }
die() {
    printf 'tools: %s\n' "$*" >&2
    exit 1
}

# Whether a nats-server program is new enough. Compared by number: 2.9 is older than 2.15.
nats_is_usable() {
    local version
    version=$("$1" --version 2>/dev/null) || return 1
    version=${version##*v}
    [[ $version =~ ^([0-9]+)\.([0-9]+)\.([0-9]+) ]] || return 1
    local have=$((BASH_REMATCH[1] * 1000000 + BASH_REMATCH[2] * 1000 + BASH_REMATCH[3]))
    [[ $nats_version =~ ^([0-9]+)\.([0-9]+)\.([0-9]+)$ ]]
    local want=$((BASH_REMATCH[1] * 1000000 + BASH_REMATCH[2] * 1000 + BASH_REMATCH[3]))
    ((have >= want))
}

find_nats() {
    local candidate gopath=
    if command -v go >/dev/null; then gopath=$(go env GOPATH); fi
    for candidate in "${TIDEMILL_NATS_SERVER:-}" "$(command -v nats-server || true)" "$root/.tools/bin/nats-server" \
        "${gopath:+$gopath/bin/nats-server}" "$HOME/go/bin/nats-server"; do
        if [[ -n $candidate ]] && nats_is_usable "$candidate"; then
            nats=$candidate
            return 0
        fi
    done
    return 1
}

get_nats() {
    if ! find_nats; then
        command -v go >/dev/null || die "no nats-server >= $nats_version and no Go to build it: install Go, or name a nats-server in TIDEMILL_NATS_SERVER"
        say "building nats-server v$nats_version with $(go version | cut -d' ' -f3) (about half a minute)"
        GOBIN=$root/.tools/bin go install "github.com/nats-io/nats-server/v2@v$nats_version"
        find_nats || die "nats-server was built, but can't be used: $root/.tools/bin/nats-server"
    fi
    say "nats-server: $nats ($("$nats" --version))"
}

get_python() {
    local base=${TIDEMILL_PYTHON:-python3} wanted
    command -v "$base" >/dev/null || die "no $base: install Python 3.9 or newer, or name one in TIDEMILL_PYTHON"
    # One line that changes when Python or the list of packages does.
    wanted="$("$base" --version 2>&1) $(cksum <$requirements)"
    if [[ -f .tools/python.stamp && $(<.tools/python.stamp) == "$wanted" ]]; then
        python=$(<.tools/python.path)
        if "$python" -c 'import nats, nkeys' 2>/dev/null; then
            say "Python: $python"
            return
        fi
    fi
    say "Python packages of $requirements"
    rm -f .tools/python.stamp
    if "$base" -m venv --clear .venv >/dev/null 2>&1; then
        python=$root/.venv/bin/python
        "$python" -m pip install --quiet --disable-pip-version-check --requirement $requirements
    else
        say "this Python makes no virtual environments: packages go to .tools/python"
        rm -rf .venv .tools/python
        "$base" -m pip install --quiet --disable-pip-version-check --target .tools/python --requirement $requirements ||
            die "this Python has neither venv nor pip: install them (Debian: python3-venv)"
        python=$root/.tools/bin/python-with-packages
        printf '#!/bin/sh\nPYTHONPATH=%q exec %q "$@"\n' "$root/.tools/python" "$(command -v "$base")" >"$python"
        chmod +x "$python"
    fi
    "$python" -c 'import nats, nkeys' || die "nats-py[nkeys] was installed, but can't be imported by $python"
    printf '%s' "$python" >.tools/python.path
    printf '%s' "$wanted" >.tools/python.stamp
    say "Python: $python"
}

get_deny() {
    if [[ $(.tools/bin/cargo-deny --version 2>/dev/null) != "cargo-deny $deny_version" ]]; then
        say "building cargo-deny $deny_version (some minutes)"
        # Unoptimised: it runs for seconds, but an optimised build takes twice as long. A target folder of its own, since flags differ.
        cargo install --quiet --locked --debug --root .tools --target-dir .tools/target "cargo-deny@$deny_version"
        rm -rf .tools/target
    fi
    say "cargo-deny: $deny_version"
}

mkdir -p .tools/bin
get_nats
get_python
[[ ${1:-} == --deny ]] && get_deny
{
    printf 'export TIDEMILL_NATS_SERVER=%q\n' "$nats"
    printf 'export NATS_SERVER=%q\n' "$nats"
    printf 'export PYTHON=%q\n' "$python"
} >.tools/env
