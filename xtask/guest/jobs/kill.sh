# Peers that die in every phase of a connection: as a user without any right who may lock 8 MiB, and as
# root. How soon the survivor is told on an emulated machine beside others says little.
kill=(kill --address "$SDP_VM_ADDR" --rounds 10 --told-ms 20000)
export SDP_PROVIDER=rdma
rdma resource show >/mnt/share/before.txt
as_nobody "$SDP" "${kill[@]}"
"$SDP" "${kill[@]}"
nothing_is_left
