# Connections both ways between two machines, on a wire that loses packets and delays them; every
# byte is compared.
rdma resource show >/mnt/share/before.txt
tc qdisc replace dev eth0 root netem delay 2ms loss 0.5% limit 10000
"$SDP" perf server --listen "$SDP_VM_ADDR:7471" --trace >/mnt/share/server.txt 2>&1 &
server=$!
within 20 grep -q : /mnt/share/server.txt || fail "the server does not listen"
tell serving
await serving
"$SDP" perf bw --connect "$SDP_VM_PEER_ADDR:7471" --provider rdma --conns 4 --seconds 4 --verify
tell sent
await sent 120
kill "$server"
wait "$server" || true
nothing_is_left
