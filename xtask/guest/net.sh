# What jobs source: RDMA devices and the networks under them.
#
# Every function ends with the same names exported:
#   SDP_VM_DEVICE       the RDMA device of this side
#   SDP_VM_ADDR         an address on it
#   SDP_VM_PEER_DEVICE  the device of the other side; the same one in a loop
#   SDP_VM_PEER_ADDR    the address of the other side

# SDP_TEST_RDMA_DEVICES and SDP_RDMA_DEVICE say the same to the project's tests and programs.

fail() {
    echo "guest: $*" >&2
    exit 1
}

# loop_up KIND: one device, both ends on it.
loop_up() {
    local kind=$1
    modprobe -a rdma_ucm veth || fail "no modules for a device"
    kind_up "$kind"
    ip link add v0 type veth peer name v1
    ip addr add 10.0.0.1/24 dev v0
    ip -6 addr add fd00::1/64 dev v0 nodad
    ip link set v0 mtu 9000 up
    ip link set v1 mtu 9000 up
    device_add "${kind}0" "$kind" v0
    export SDP_VM_DEVICE=${kind}0 SDP_VM_ADDR=10.0.0.1
    export SDP_VM_PEER_DEVICE=${kind}0 SDP_VM_PEER_ADDR=10.0.0.1
    known_to_programs
}

# pair_up KIND: two devices of one guest with a wire between them. The kernel would deliver between
# two of its own addresses without the wire; the rules send each over its interface.
pair_up() {
    local kind=$1 scope
    modprobe -a rdma_ucm veth || fail "no modules for a device"
    kind_up "$kind"
    ip link add a0 type veth peer name a1
    ip addr add 10.1.0.1/24 dev a0
    ip addr add 10.1.1.2/24 dev a1
    for scope in all default a0 a1; do
        echo 1 >"/proc/sys/net/ipv4/conf/$scope/accept_local"
        echo 0 >"/proc/sys/net/ipv4/conf/$scope/rp_filter"
    done
    ip link set a0 mtu 4500 up
    ip link set a1 mtu 4500 up
    ip route add 10.1.1.2/32 dev a0 src 10.1.0.1
    ip route add 10.1.0.1/32 dev a1 src 10.1.1.2
    ip rule add pref 100 lookup local
    ip rule del pref 0
    neighbours_known
    ip rule add pref 10 to 10.1.1.2 iif lo oif a0 lookup main
    ip rule add pref 11 to 10.1.0.1 iif lo oif a1 lookup main
    device_add "${kind}0" "$kind" a0
    device_add "${kind}1" "$kind" a1
    export SDP_VM_DEVICE=${kind}0 SDP_VM_ADDR=10.1.0.1
    export SDP_VM_PEER_DEVICE=${kind}1 SDP_VM_PEER_ADDR=10.1.1.2
    known_to_programs
}

# neighbours_known: the two ends of pair_up. Asked on this wire the other end answers before the kernel has
# noted who waits for the answer, who then waits until the time is out (seen in Linux 6.1); only our own
# programs ask again.
neighbours_known() {
    ip neigh replace 10.1.1.2 lladdr "$(cat /sys/class/net/a1/address)" dev a0 nud stale
    ip neigh replace 10.1.0.1 lladdr "$(cat /sys/class/net/a0/address)" dev a1 nud stale
}

# link_up KIND: this guest's end of the wire between two guests; returns when the peer is there.
link_up() {
    local kind=$1 me=$((GUEST_NODE + 1)) peer=$((2 - GUEST_NODE))
    modprobe -a virtio_net rdma_ucm || fail "no modules for a device"
    kind_up "$kind"
    within 10 test -e /sys/class/net/eth0 || fail "no interface to the other guest"
    ip addr add "10.9.0.$me/24" dev eth0
    ip -6 addr add "fd00::$me/64" dev eth0 nodad
    ip link set eth0 mtu 9000 up
    device_add "${kind}0" "$kind" eth0
    export SDP_VM_DEVICE=${kind}0 SDP_VM_ADDR=10.9.0.$me
    export SDP_VM_PEER_DEVICE=${kind}0 SDP_VM_PEER_ADDR=10.9.0.$peer
    known_to_programs
    tell up
    # It may have to be started again.
    await up 300
}

# What the project's own programs read. In one guest both devices are named, between two guests
# each names its own.
known_to_programs() {
    SDP_TEST_RDMA_DEVICES=$SDP_VM_DEVICE
    [ "$SDP_VM_DEVICE" = "$SDP_VM_PEER_DEVICE" ] ||
        SDP_TEST_RDMA_DEVICES=$SDP_VM_DEVICE,$SDP_VM_PEER_DEVICE
    export SDP_TEST_RDMA_DEVICES SDP_RDMA_DEVICE=$SDP_VM_DEVICE
}

kind_up() {
    case $1 in
    rxe) modprobe rdma_rxe || fail "no module for rxe" ;;
    siw)
        modprobe siw || fail "no module for siw"
        # siw charges locked memory to root too.
        ulimit -l unlimited
        ;;
    *) fail "no kind of device is called $1" ;;
    esac
}

# device_add NAME KIND INTERFACE
device_add() {
    rdma link add "$1" type "$2" netdev "$3" || fail "cannot add $1 on $3"
    within 10 grep -q ACTIVE "/sys/class/infiniband/$1/ports/1/state" || fail "$1 is not active"
    within 10 has_address "$1" || fail "$1 has no address"
}

# has_address NAME: the kernel fills the table of a device some time after it is there. On RoCE a peer
# is reached by the entry that is made of the interface's address.
has_address() {
    local table=/sys/class/infiniband/$1/ports/1/gids
    case $1 in
    rxe*) grep -qs '^0000:0000:0000:0000:0000:ffff:' "$table"/* ;;
    *) grep -qsv '^[0:]*$' "$table/0" ;;
    esac
}

# within SECONDS COMMAND...: repeats the command until it succeeds.
within() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 0.05
    done
}

# tell NAME [TEXT], await NAME [SECONDS]: what one guest leaves for the other, and waiting for it.
tell() {
    echo "${2:-}" >"/mnt/link/$1.$GUEST_NODE.part"
    mv "/mnt/link/$1.$GUEST_NODE.part" "/mnt/link/$1.$GUEST_NODE"
}

await() {
    local file=/mnt/link/$1.$((1 - GUEST_NODE))
    within "${2:-60}" test -e "$file" || fail "the other guest never said $1"
    cat "$file"
}

# rping_serves: the server of rping, for one client after the other; its process is $rping_server.
rping_serves() {
    rping -s -P -a "$1" -S 4096 >/mnt/share/server.txt 2>&1 &
    rping_server=$!
    rdma_listens
}

rping_ends() {
    kill "$rping_server"
    wait "$rping_server" || true
}

# serve: a server for the other guest's `sdp perf`, which is told when it listens.
serve() {
    "$SDP" perf server --listen "$SDP_VM_ADDR:7471" --trace >/mnt/share/server.txt 2>&1 &
    server=$!
    within 20 grep -q : /mnt/share/server.txt || fail "the server does not listen"
    tell serving
}

# served SECONDS: the other guest has sent what it wanted to, at most so much later. The server ends.
served() {
    await sent "$1"
    kill "$server"
    wait "$server" || true
}

# serve_each_other, served_each_other: both guests send, between the one and the other.
serve_each_other() {
    # What a run that stands still was doing is kept with the guest's files.
    export TMPDIR=/mnt/share
    rdma resource show >/mnt/share/before.txt
    serve
    # Also when it failed: the other guest waits for it.
    trap 'tell sent' EXIT
    await serving
}

served_each_other() {
    tell sent
    served 300
    nothing_is_left
}

# rping_here ROUNDS: verified RDMA reads and writes between both ends on this machine.
rping_here() {
    local source=()
    [ "$SDP_VM_DEVICE" = "$SDP_VM_PEER_DEVICE" ] || source=(-I "$SDP_VM_ADDR")
    rping_serves "$SDP_VM_PEER_ADDR"
    rping_to "$SDP_VM_PEER_ADDR" "$1" "${source[@]}"
    rping_ends
}

# rping_to ADDRESS ROUNDS ARGUMENT...: the client. It exits with 0 also when its connection breaks,
# so the rounds it has verified are counted. Soft-iWARP may leave the first message of a connection
# lying, which rping does not send again: there it gets another try.
rping_to() {
    local address=$1 rounds=$2 done limit=300 tries=1
    shift 2
    case $SDP_VM_DEVICE in siw*) limit=60 tries=5 ;; esac
    until timeout $limit rping -c -a "$address" "$@" -v -V -C "$rounds" -S 4096 >/mnt/share/client.txt 2>&1; do
        tries=$((tries - 1))
        [ $tries -gt 0 ] || fail "rping: $(tail -c 500 /mnt/share/client.txt)"
    done
    done=$(grep -ac '^ping data' /mnt/share/client.txt) || true
    [ "$done" = "$rounds" ] || fail "rping verified $done of $rounds rounds"
    echo "$done rounds verified"
}

# Returns when some program listens by the RDMA connection manager.
rdma_listens() {
    within 20 sh -c "rdma resource show cm_id | grep -q LISTEN" || fail "nobody listens"
}

# as_nobody PROGRAM ARGUMENT...: as a user without any right who may lock 8 MiB. The program is put
# where that user can reach it.
as_nobody() {
    local program
    program=/run/programs/$(basename "$1")
    mkdir -p /run/programs
    cp "$1" "$program"
    shift
    (cd / && setpriv --reuid 65534 --regid 65534 --clear-groups \
        prlimit --memlock=8388608:8388608 "$program" "$@")
}

# program FILE PROGRAM ARGUMENT...: a small program that runs another one with these arguments and its own.
program() {
    local file=$1
    shift
    printf '#!/bin/sh\nexec%s "$@"\n' "$(printf ' "%s"' "$@")" >"$file"
    chmod +x "$file"
}

# nothing_is_left: the devices hold what they held when /mnt/share/before.txt was written. The
# kernel destroys what a process held some time after its end.
nothing_is_left() {
    within 10 holds_as_before ||
        fail "left in a device: $(rdma resource show | diff /mnt/share/before.txt -)"
}

holds_as_before() {
    rdma resource show | cmp -s /mnt/share/before.txt -
}
