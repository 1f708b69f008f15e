# A program that knows only TCP, as it is, on both machines: its bytes arrive unchanged, and what it
# says at its end is that they went by SDP.
mkdir -p /run/preload
cd /run/preload
rdma resource show >/mnt/share/before.txt
# Setting up a connection takes an emulated machine longer than a real one.
export SDP_PRELOAD_WAIT=10000
if [ "$GUEST_NODE" = 1 ]; then
    # It waits before it accepts: where TCP listens too, its first caller is left to TCP.
    "$SDP" run --only-sdp --report \
        socat -u -b 1048576 "TCP-LISTEN:7480,bind=$SDP_VM_ADDR" CREATE:got 2>/mnt/share/report.txt &
    server=$!
    rdma_listens
    tell serving
    wait "$server" || fail "the server ended with $?: $(cat /mnt/share/report.txt)"
    tell sum "$(sha256sum <got)"
    went='SDP: 0 connected, 1 accepted'
else
    head -c 16777216 /dev/urandom >sent
    await serving
    "$SDP" run --report socat -u -b 1048576 FILE:sent "TCP:$SDP_VM_PEER_ADDR:7480" \
        2>/mnt/share/report.txt || fail "the client ended with $?: $(cat /mnt/share/report.txt)"
    [ "$(await sum)" = "$(sha256sum <sent)" ] || fail "other bytes arrived than were sent"
    went='SDP: 1 connected, 0 accepted'
fi
cat /mnt/share/report.txt
grep -q "$went" /mnt/share/report.txt || fail "it did not go by SDP"
nothing_is_left
