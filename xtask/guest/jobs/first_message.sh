# The first message of many connections, each of which its sender follows with nothing: Soft-iWARP may
# leave it lying in the accepting socket, and ends a connection whose accepting side sends first.
# What a run that stands still was doing is kept with the guest's files.
export TMPDIR=/mnt/share
rdma resource show >/mnt/share/before.txt
"$SDP" perf server --listen "$SDP_VM_ADDR:7471" --trace >/mnt/share/server.txt 2>&1 &
server=$!
within 20 grep -q : /mnt/share/server.txt || fail "the server does not listen"
# Also when it failed: the other guest waits for it.
trap 'tell sent' EXIT
tell serving
await serving
if [ "$GUEST_NODE" = 0 ]; then
    for _ in 1 2 3 4 5; do
        "$SDP" perf bw --connect "$SDP_VM_PEER_ADDR:7471" --provider rdma --conns 16 --size 64K --seconds 0.2 --verify
    done
fi
tell sent
await sent 300
kill "$server"
wait "$server" || true
nothing_is_left
