# Without a device hw-test fails, names what could be missing, and leaves no page: there is nothing
# on it.
mkdir -p /run/empty
cd /run/empty
for arguments in --server "--peer 10.0.0.1"; do
    status=0
    # One argument, or two.
    # shellcheck disable=SC2086
    "$XTASK" hw-test $arguments --sdp "$SDP" >/mnt/share/said.txt 2>&1 || status=$?
    cat /mnt/share/said.txt
    [ "$status" = 1 ] || fail "hw-test $arguments ended with $status"
    for word in Driver Package Port; do
        grep -q "^FAIL  device.*$word: " /mnt/share/said.txt ||
            fail "hw-test $arguments did not name the $word"
    done
    [ -z "$(ls)" ] || fail "hw-test $arguments left $(ls)"
done
