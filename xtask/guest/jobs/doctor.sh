# What an operator sees: the doctor finds the device and the way by it, and says so if there is no way;
# running streams tell which device they are on, and how their bytes go.
"$SDP" doctor "$SDP_VM_ADDR" >/mnt/share/doctor.txt || fail "$(cat /mnt/share/doctor.txt)"
cat /mnt/share/doctor.txt
SDP_PROVIDER=rdma "$SDP" doctor "$SDP_VM_ADDR" >/mnt/share/rdma.txt || fail "$(cat /mnt/share/rdma.txt)"
grep 'peer.route: .* by provider rdma (SDP_PROVIDER asks for it), device' /mnt/share/rdma.txt ||
    fail "$(cat /mnt/share/rdma.txt)"
grep 'rdma.port: .* ACTIVE' /mnt/share/rdma.txt || fail "$(cat /mnt/share/rdma.txt)"
SDP_RDMA_DEVICE=none "$SDP" doctor | grep 'rdma.device: SDP_RDMA_DEVICE=none' || fail 'a device that is not there'

mkfifo /run/said
"$SDP" perf server --listen "$SDP_VM_ADDR:0" >/run/said &
read -r line </run/said
"$SDP" perf bw --connect "${line##* }" --provider rdma --size 65536 --bytes 64M >/mnt/share/bw.txt 2>&1 &
client=$!
told=
while [ -z "$told" ] && kill -0 "$client" 2>/dev/null; do
    "$SDP" stat --prometheus >/mnt/share/stat.txt || true
    told=$(grep 'sdp_sent_bytes_total{.*provider="rdma",device="[a-z0-9]*",way="copied"} [1-9]' /mnt/share/stat.txt) || true
done
[ -n "$told" ] || fail "nothing was told of streams by a device: $(cat /mnt/share/stat.txt /mnt/share/bw.txt)"
echo "$told"
wait "$client" || fail "$(cat /mnt/share/bw.txt)"
