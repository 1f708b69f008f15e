# hw-test from one machine, which starts the other side by ssh. What is measured is the other job's:
# here it is as little as its charts need, and some of the conformance suite.
rdma resource show >/mnt/share/before.txt
mkdir -p /run/keys /root/.ssh
chmod 700 /root/.ssh
if [ "$GUEST_NODE" = 1 ]; then
    dropbearkey -t ed25519 -f /run/keys/host >/mnt/share/key.txt
    await key >/root/.ssh/authorized_keys
    chmod 600 /root/.ssh/authorized_keys
    dropbear -F -E -s -r /run/keys/host -p "$SDP_VM_ADDR:22" >/mnt/share/server.txt 2>&1 &
    server=$!
    tell serving
    await tested 550
    nothing_is_left
    kill "$server"
    exit
fi
trap 'tell tested' EXIT
ssh-keygen -q -t ed25519 -N '' -f /run/keys/mine
tell key "$(cat /run/keys/mine.pub)"
cat >/root/.ssh/config <<'END'
Host peer
    HostName PEER
    IdentityFile /run/keys/mine
    StrictHostKeyChecking no
    UserKnownHostsFile /dev/null
    LogLevel ERROR
END
sed -i "s/PEER/$SDP_VM_PEER_ADDR/" /root/.ssh/config
chmod 600 /root/.ssh/config
await serving
within 20 ssh peer true || fail "no way by ssh"
# What is copied over an emulated wire is small: it runs the program that both machines see.
program /run/sdp "$SDP"
program /run/conformance "$TEST" role::
"$XTASK" hw-test --ssh peer --peer "$SDP_VM_PEER_ADDR" --sdp /run/sdp --conformance /run/conformance \
    --seconds 0.1 --sizes 1024,65536 --conns 1,4 \
    --json /mnt/share/report.json --html /mnt/share/report.html
nothing_is_left
