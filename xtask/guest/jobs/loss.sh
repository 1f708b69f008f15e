# Connections both ways between two machines, on a wire that loses packets and delays them; every
# byte is compared, and no request comes after its key was given back.
# What a run that stands still was doing is kept with the guest's files.
export TMPDIR=/mnt/share
rdma resource show >/mnt/share/before.txt
tc qdisc replace dev eth0 root netem delay 2ms loss 0.5% limit 10000
"$SDP" perf server --listen "$SDP_VM_ADDR:7471" --trace >/mnt/share/server.txt 2>&1 &
server=$!
within 20 grep -q : /mnt/share/server.txt || fail "the server does not listen"
# Also when it failed: the other guest waits for it.
trap 'tell sent' EXIT
tell serving
await serving
"$SDP" perf bw --connect "$SDP_VM_PEER_ADDR:7471" --provider rdma --conns 16 --size 256K --seconds 60 --verify \
    --json /mnt/share/report.json
grep -q '"remote_access_after_release"' /mnt/share/report.json ||
    fail "nothing was counted below the engine"
tell sent
await sent 300
kill "$server"
wait "$server" || true
nothing_is_left
