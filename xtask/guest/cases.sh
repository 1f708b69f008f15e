# What a boot runs: cases one after the other, each alone with its files and its processes, and with
# its own part of the kernel's log.

# Far above what a case takes, also on a machine that does much else: one over this hangs.
CASE_MAX=600
# What ends the output of a case.
END=$'\036'

# run_cases NAME...: until one fails; what comes after it wants another boot.
run_cases() {
    local name status
    [ -z "${SDP_VM_DEVICE:-}" ] || rdma resource show >/run/held
    while [ $# -gt 0 ]; do
        name=$1 status=0
        shift
        run_case "$name" || status=$?
        [ $# = 0 ] || go_on_after "$name" "$status" || return 0
    done
}

# go_on_after NAME STATUS: when the case has succeeded, with two guests on both.
go_on_after() {
    if [ -n "$GUEST_LINK" ]; then
        mount --bind "/mnt/cases/$1/link" /mnt/link
        tell over "$2"
    fi
    [ "$2" = 0 ] || return
    [ -z "$GUEST_LINK" ] || [ "$(await over $CASE_MAX)" = 0 ]
}

# run_case NAME: the job sees its case's folder as /mnt/share, what two guests share as /mnt/link, and
# nothing of other cases. All that it leaves running ends with it, and the device is as before then.
run_case() {
    local folder=/mnt/cases/$1 status=0
    local mounts="mount -t tmpfs tmpfs /run"
    if [ -n "$GUEST_LINK" ]; then
        mounts+=" && mount --bind $folder/link /mnt/link"
        folder+=/$GUEST_NODE
    fi
    mounts+=" && mount --bind $folder /mnt/share && cd /mnt/share"
    timeout -s KILL $CASE_MAX unshare --mount --pid --fork --kill-child --mount-proc \
        bash -c "$mounts && exec bash job.sh" || status=$?
    if [ -n "${SDP_VM_DEVICE:-}" ] && ! within 10 holds_as_at_first; then
        echo "left in a device: $(rdma resource show | diff /run/held -)"
        status=1
    fi
    dmesg --read-clear >"$folder/dmesg.txt"
    ! kernel_complains <"$folder/dmesg.txt" || status=1
    echo "$status" >"$folder/status.part"
    mv "$folder/status.part" "$folder/status"
    echo "$END"
    return "$status"
}

holds_as_at_first() {
    rdma resource show | cmp -s /run/held -
}

# kernel_complains: by what the machine outside has said that no sound kernel says. Nothing of what comes
# after that proves anything.
kernel_complains() {
    [ -n "$(grep -F -- "$GUEST_COMPLAINTS" | grep -v -F -- "$GUEST_HARMLESS")" ]
}
