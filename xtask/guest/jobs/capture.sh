# A conversation with copies and without, both ends of which write down what they say and hear. The
# hypervisor captures the wire.
export SDP_CAPTURE=/mnt/share/log-%p.pcapng SDP_CAPTURE_PAYLOAD=all
if [ "$GUEST_NODE" = 1 ]; then
    "$SDP" perf server --listen "$SDP_VM_ADDR:7471" --trace >/mnt/share/server.txt 2>&1 &
    server=$!
    within 20 grep -q : /mnt/share/server.txt || fail "the server does not listen"
    tell serving
    await sent 120
    kill "$server"
    wait "$server" || true
    exit
fi
trap 'tell sent' EXIT
await serving
for how in "--size 3000 --mode bcopy" "--size 40000 --mode bcopy" "--size 100000 --mode zcopy"; do
    # The words are arguments.
    # shellcheck disable=SC2086
    "$SDP" perf bw --connect "$SDP_VM_PEER_ADDR:7471" --provider rdma --conns 2 --bytes 400K $how --verify
done
