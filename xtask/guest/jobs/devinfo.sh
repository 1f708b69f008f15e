# The device is there, its port is up, and it has addresses.
shows_address() {
    ibv_devinfo -v -d "$SDP_VM_DEVICE" >/mnt/share/devinfo.txt
    # iWARP does without GIDs, and does not always show one.
    grep -qE 'GID\[|iWARP' /mnt/share/devinfo.txt
}
# libibverbs sees the addresses some time after the port is up.
within 10 shows_address || fail "$SDP_VM_DEVICE has no address"
grep -E 'transport:|max_qp:|max_sge:|max_mw:|active_mtu:|GID\[' /mnt/share/devinfo.txt
grep -q PORT_ACTIVE /mnt/share/devinfo.txt || fail "the port of $SDP_VM_DEVICE is not active"
