# Without a peer, and with one that does not serve, hw-test fails and names the peer. No page is left:
# nothing was measured.
mkdir -p /run/empty
cd /run/empty
for arguments in "" "--peer $SDP_VM_PEER_ADDR"; do
    status=0
    # No argument, or two.
    # shellcheck disable=SC2086
    "$XTASK" hw-test $arguments --sdp "$SDP" >/mnt/share/said.txt 2>&1 || status=$?
    cat /mnt/share/said.txt
    [ "$status" = 1 ] || fail "hw-test $arguments ended with $status"
    grep -q '^FAIL  peer' /mnt/share/said.txt || fail "hw-test $arguments did not name the peer"
    grep -q '^ok    device' /mnt/share/said.txt || fail "hw-test $arguments saw no device"
    [ -z "$(ls)" ] || fail "hw-test $arguments left $(ls)"
done
