# hw-test with two machines as its two nodes: the second serves, the first tests and measures, and
# leaves its report. Every kind of check and of measurement, each short; but no message of 1 MiB, since
# how much of a device's throughput a connection reaches is nothing that an emulated wire can tell.
# Of the conformance suite only what has two roles: the rest runs on one machine, which other jobs see to.
rdma resource show >/mnt/share/before.txt
if [ "$GUEST_NODE" = 1 ]; then
    "$XTASK" hw-test --server --sdp "$SDP" >/mnt/share/server.txt 2>&1 &
    server=$!
    within 60 grep -q '^serving' /mnt/share/server.txt ||
        fail "hw-test does not serve: $(cat /mnt/share/server.txt)"
    tell serving
    await tested 550
    # Whatever it runs ends with it.
    kill "$server"
    wait "$server" || true
    nothing_is_left
    cat /mnt/share/server.txt
    exit
fi
# Also when it failed: the other guest waits for it.
trap 'tell tested' EXIT
program /run/conformance "$TEST" role::
await serving
"$XTASK" hw-test --peer "$SDP_VM_PEER_ADDR" --sdp "$SDP" --conformance /run/conformance \
    --seconds 0.3 --sizes 1024,65536 --conns 1,4 \
    --json /mnt/share/report.json --html /mnt/share/report.html
nothing_is_left
