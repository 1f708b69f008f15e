# The first message of many connections, each of which its sender follows with nothing: Soft-iWARP may
# leave it lying in the accepting socket, and ends a connection whose accepting side sends first.
serve_each_other
if [ "$GUEST_NODE" = 0 ]; then
    for _ in 1 2 3 4 5; do
        "$SDP" perf bw --connect "$SDP_VM_PEER_ADDR:7471" --provider rdma --conns 16 --size 64K --seconds 0.2 --verify
    done
fi
served_each_other
