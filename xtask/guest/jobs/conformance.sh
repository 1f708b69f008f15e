# The suite between two ends; what it leaves out is held against what the device says of itself. Few at
# once, the guest is slow.
ibv_devinfo -v -d "$SDP_VM_PEER_DEVICE" >/mnt/share/devinfo.txt
"$TEST" --include-ignored --test-threads=2
