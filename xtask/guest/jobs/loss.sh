# Connections both ways between two machines, on a wire that loses packets and delays them; every
# byte is compared, and no request comes after its key was given back. A minute of it is asked of one
# kind of device.
case $SDP_VM_DEVICE in siw*) seconds=20 ;; *) seconds=60 ;; esac
tc qdisc replace dev eth0 root netem delay 2ms loss 0.5% limit 10000
serve_each_other
"$SDP" perf bw --connect "$SDP_VM_PEER_ADDR:7471" --provider rdma --conns 16 --size 256K --seconds $seconds --verify \
    --json /mnt/share/report.json
grep -q '"remote_access_after_release"' /mnt/share/report.json ||
    fail "nothing was counted below the engine"
served_each_other
tc qdisc del dev eth0 root
