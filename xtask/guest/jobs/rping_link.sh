# Verified RDMA reads and writes between two machines. The client verifies; the status of a server
# that was left by its client says nothing.
if [ "$GUEST_NODE" = 0 ]; then
    rping -s -a "$SDP_VM_ADDR" >/mnt/share/server.txt 2>&1 &
    server=$!
    rdma_listens
    tell listening
    wait "$server" || true
else
    await listening
    timeout 100 rping -c -a "$SDP_VM_PEER_ADDR" -V -C 50 -S 4096
    echo "50 rounds verified"
fi
