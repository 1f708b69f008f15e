# Without a peer, and with one that does not serve, hw-test fails and names the peer.
for arguments in "" "--peer $SDP_VM_PEER_ADDR"; do
    status=0
    # No argument, or two.
    # shellcheck disable=SC2086
    "$XTASK" hw-test $arguments --sdp "$SDP" --html /mnt/share/report.html \
        >/mnt/share/said.txt 2>&1 || status=$?
    cat /mnt/share/said.txt
    [ "$status" = 1 ] || fail "hw-test $arguments ended with $status"
    grep -q '^FAIL  peer' /mnt/share/said.txt || fail "hw-test $arguments did not name the peer"
    grep -q '^ok    device' /mnt/share/said.txt || fail "hw-test $arguments saw no device"
done
