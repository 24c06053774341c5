# The first program of a node's own namespaces (processes, mounts, network): makes its surroundings, then holds them until it is killed.
# Arguments: the node's folder, the program to stay as, the node's address with its mask.
set -eu
folder=$1 stay=$2 address=$3

# /proc is still the machine's: our process id there.
read -r pid _ </proc/self/stat
mount -t proc proc /proc
# What the programs keep at fixed places they keep in the folder, or forget with the namespace.
mount -t tmpfs tmpfs /run
mkdir -p /run/netns "$folder/lib" "$folder/log" "$folder/sysctl"
mount --bind "$folder/lib" /var/lib
mount --bind "$folder/log" /var/log
# kubelet sets these for the whole machine: it gets copies.
for name in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
    copy=$folder/sysctl/${name##*/}
    cat "/proc/sys/$name" >"$copy"
    mount --bind "$copy" "/proc/sys/$name"
done

# No device leads out of here. The bridge has the node's address, and a default route, without which services aren't reached.
ip link set lo up
ip link add node type bridge
ip address add "$address" dev node
ip link set node up
ip route add default via "${address%/*}"
echo 1 >/proc/sys/net/ipv4/ip_forward
echo 1 >/proc/sys/net/bridge/bridge-nf-call-iptables

# Whole or not at all.
echo "$pid" >"$folder/pid.new"
mv "$folder/pid.new" "$folder/pid"
exec "$stay"
