# Streams used in every way at once, every byte compared: as a user without any right who may lock
# 8 MiB, and as root, with memory that peers read and write. Nothing is left in the device.
soak=(soak --provider rdma --address "$SDP_VM_ADDR" --layers plain --seconds 6 --conns 4 --disturbances 4)
rdma resource show >/mnt/share/before.txt
as_nobody "$SDP" "${soak[@]}"
"$SDP" "${soak[@]}"
nothing_is_left
