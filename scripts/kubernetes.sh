#!/usr/bin/env bash
# Builds the programs of a real Kubernetes from source, pinned by testbed/kubernetes/go.sum, into .tools/kubernetes, and adds where that is to
# .tools/env (TIDEMILL_KUBERNETES). Some minutes the first time, then nothing until a version changes.
#   scripts/kubernetes.sh          etcd, kube-apiserver, kubectl, helm: what tests of the operator need
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

module=testbed/kubernetes
programs=(k8s.io/kubernetes/cmd/kube-apiserver k8s.io/kubernetes/cmd/kubectl ./cmd/etcd)

helm_version=v4.3.1

say() { printf 'kubernetes: %s\n' "$*"; }
die() {
    printf 'kubernetes: %s\n' "$*" >&2
    exit 1
}

command -v go >/dev/null || die "no Go to build Kubernetes with: install Go 1.26 or newer"
version=$(awk '$1 == "k8s.io/kubernetes" { print $2; exit }' $module/go.mod)
folder=$PWD/.tools/kubernetes
mkdir -p "$folder"
# Other versions, other programs.
pinned=$(cat $module/go.mod $module/go.sum $module/cmd/*/*.go <(echo "helm $helm_version") | cksum)
if [[ $(cat "$folder/pinned" 2>/dev/null) != "$pinned" ]]; then
    rm -f "$folder"/*
    printf '%s' "$pinned" >"$folder/pinned"
fi
# Of a module with replacements of its own: by its version alone.
if [[ ! -x $folder/helm ]]; then
    say "building helm $helm_version (a minute or two)"
    GOBIN=$folder CGO_ENABLED=0 go install -trimpath -ldflags "-s -w" "helm.sh/helm/v4/cmd/helm@$helm_version"
fi
for package in "${programs[@]}"; do
    name=${package##*/}
    [[ -x $folder/$name ]] && continue
    say "building $name (Kubernetes $version; the first takes some minutes)"
    begin=$SECONDS
    (
        cd $module
        set="-X k8s.io/component-base/version.gitVersion=$version -X k8s.io/client-go/pkg/version.gitVersion=$version"
        CGO_ENABLED=0 go build -trimpath -mod=readonly -ldflags "-s -w $set" -o "$folder/$name.new" "$package"
    )
    # Whole or not at all: a build may be killed.
    mv "$folder/$name.new" "$folder/$name"
    say "built $name in $((SECONDS - begin)) s"
done
say "Kubernetes $version: $folder"

touch .tools/env
grep -v '^export TIDEMILL_KUBERNETES=' .tools/env >.tools/env.new || true
printf 'export TIDEMILL_KUBERNETES=%q\n' "$folder" >>.tools/env.new
mv .tools/env.new .tools/env
