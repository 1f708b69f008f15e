# Verified RDMA reads and writes between two machines.
if [ "$GUEST_NODE" = 0 ]; then
    rping_serves "$SDP_VM_ADDR"
    tell listening
    await verified 400
    rping_ends
else
    await listening
    # Also when it failed: the other guest waits for it.
    trap 'tell verified' EXIT
    rping_to "$SDP_VM_PEER_ADDR" 50
fi
