# Verified RDMA reads and writes between two machines.
if [ "$GUEST_NODE" = 0 ]; then
    rping -s -a "$SDP_VM_ADDR" -S 4096 >/mnt/share/server.txt 2>&1 &
    rdma_listens
    tell listening
    # It ends when its client has left, with an error or without; the client counts the rounds.
    wait $! || true
else
    await listening
    rping_to "$SDP_VM_PEER_ADDR" 50
fi
