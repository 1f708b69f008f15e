# Peers that die in every phase of a connection. As root: a peer may hold more than 8 MiB.
rdma resource show >/mnt/share/before.txt
SDP_PROVIDER=rdma "$SDP" kill --address "$SDP_VM_ADDR" --rounds 20
nothing_is_left
