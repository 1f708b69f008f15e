# A conversation with copies and without, both ends of which write down what they say and hear. The
# hypervisor captures the wire.
export SDP_CAPTURE=/mnt/share/log-%p.pcapng SDP_CAPTURE_PAYLOAD=all
if [ "$GUEST_NODE" = 1 ]; then
    serve
    served 120
    exit
fi
trap 'tell sent' EXIT
await serving
for how in "--size 3000 --mode bcopy" "--size 40000 --mode bcopy" "--size 100000 --mode zcopy"; do
    # The words are arguments.
    # shellcheck disable=SC2086
    "$SDP" perf bw --connect "$SDP_VM_PEER_ADDR:7471" --provider rdma --conns 2 --bytes 400K $how --verify
done
