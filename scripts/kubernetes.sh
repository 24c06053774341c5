#!/usr/bin/env bash
# Builds the programs of a real Kubernetes from source, pinned by the go.sum files below testbed/kubernetes, into .tools/kubernetes, and adds
# where that is to .tools/env (TIDEMILL_KUBERNETES). Some minutes the first time, then nothing until a version changes.
#   scripts/kubernetes.sh          etcd, kube-apiserver, kubectl, helm: what tests of the operator need
#   scripts/kubernetes.sh node     also kubelet and all the rest that a node needs; on Debian and its like, root gets containerd, runc, CNI
#                                  plugins, iptables, iproute2 and busybox as packages. Where a node can't run in the end, one line says
#                                  why, and tests that need one are skipped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

module=testbed/kubernetes
programs=(k8s.io/kubernetes/cmd/kube-apiserver k8s.io/kubernetes/cmd/kubectl ./cmd/etcd)
of_node=(k8s.io/kubernetes/cmd/{kube-controller-manager,kube-scheduler,kubelet,kube-proxy} ./cmd/pause ./coredns)

helm_version=v4.3.1

# Programs of the machine (as testbed/cluster/src/programs.rs asks for them), and the Debian packages that have them.
of_machine=(busybox containerd containerd-shim-runc-v2 ctr ip iptables iptables-save mount nsenter runc unshare)
packages=(busybox-static containerd containernetworking-plugins iproute2 iptables mount runc util-linux)
plugin_folders=(/usr/lib/cni /opt/cni/bin /usr/libexec/cni /usr/local/libexec/cni)

say() { printf 'kubernetes: %s\n' "$*"; }
die() {
    printf 'kubernetes: %s\n' "$*" >&2
    exit 1
}

# What of the machine a node lacks.
lacks() {
    local name folder
    for name in "${of_machine[@]}"; do
        command -v "$name" >/dev/null || printf '%s ' "$name"
    done
    for folder in "${plugin_folders[@]}"; do
        [[ -x $folder/bridge && -x $folder/host-local && -x $folder/loopback && -x $folder/portmap ]] && return
    done
    printf 'CNI-plugins '
}

get_packages() {
    local log=.tools/packages.log
    [[ -n $(lacks) && $(uname -s) == Linux && $(id -u) == 0 ]] && command -v apt-get >/dev/null || return 0
    say "installing ${packages[*]}"
    # A list of packages that is too old, or none, is the usual reason for a failure.
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${packages[@]}" >$log 2>&1 </dev/null ||
        { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${packages[@]}"; } >>$log 2>&1 </dev/null ||
        say "that failed: $log"
}

case ${1:-} in
'') ;;
node)
    mkdir -p .tools
    get_packages
    missing=$(lacks)
    if [[ $(uname -s) != Linux || $(id -u) != 0 ]]; then
        say "no node here: it needs Linux and root"
    elif [[ -n $missing ]]; then
        say "no node here, missing: $missing"
    else
        programs+=("${of_node[@]}")
    fi
    ;;
*) die "unknown argument $1: 'node' or none" ;;
esac

command -v go >/dev/null || die "no Go to build Kubernetes with: install Go 1.26 or newer"
version=$(awk '$1 == "k8s.io/kubernetes" { print $2; exit }' $module/go.mod)
folder=$PWD/.tools/kubernetes
mkdir -p "$folder"
# Other versions, other programs.
pinned=$(cat $module/{,coredns/}go.{mod,sum} $module/cmd/*/*.go $module/coredns/*.go <(echo "helm $helm_version") | cksum)
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
        # A module of its own.
        if [[ -f $package/go.mod ]]; then
            cd "$package"
            package=.
        fi
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
