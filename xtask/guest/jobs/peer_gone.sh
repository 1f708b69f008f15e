# A machine dies while calls of the other one wait for it.
export SDP_TEST_ADDR=$SDP_VM_ADDR SDP_TEST_PEER_ADDR=$SDP_VM_PEER_ADDR
rdma resource show >/mnt/share/before.txt
if [ "$GUEST_NODE" = 1 ]; then
    "$TEST" --include-ignored --exact dies >/mnt/share/dies.txt 2>&1 &
    rdma_listens
    tell listening
    await blocked 120
    # From one moment to the next, without a word to the peer.
    dmesg >/mnt/share/dmesg.txt
    echo 0 >/mnt/share/status
    echo b >/proc/sysrq-trigger
    sleep 60
fi
await listening
SDP_TEST_BLOCKED=/mnt/link/blocked.0 "$TEST" --include-ignored --exact survives --nocapture
nothing_is_left
