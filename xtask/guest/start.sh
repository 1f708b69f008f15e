# The first program over the host's files: gives jobs a system to run in, runs them, and switches the
# machine off. Their output goes to the second serial line, which the hypervisor hands to xtask; the
# exit status and the kernel's log of each go to a folder of its own, below /mnt/cases.

PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
HOME=/ LANG=C.UTF-8 TERM=dumb
export PATH HOME LANG TERM
. /mnt/share/settings.sh

mkdir -p /dev/pts /dev/shm /mnt/link /mnt/boot /mnt/cases
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mount -t debugfs debugfs /sys/kernel/debug
[ -z "$GUEST_LINK" ] ||
    mount -t 9p -o trans=virtio,version=9p2000.L,rw,cache=none,msize=512000 link /mnt/link
mount -t 9p -o trans=virtio,version=9p2000.L,rw,cache=none,msize=512000 cases /mnt/cases
# What belongs to the boot keeps a name when a job has its own folder as /mnt/share.
mount --bind /mnt/share /mnt/boot
mkdir -p /lib/modules
rm -rf "/lib/modules/$GUEST_KERNEL"
ln -s "$GUEST_MODULES" "/lib/modules/$GUEST_KERNEL"
echo /sbin/modprobe >/proc/sys/kernel/modprobe
echo "node$GUEST_NODE" >/proc/sys/kernel/hostname
ip link set lo up

power_off() {
    sync
    echo o >/proc/sysrq-trigger
    sleep 60
}

: >/mnt/share/begun

# On a busy machine the kernel may measure its clock against the old timer, wrongly by a factor.
# Every time-out of the job would be wrong with it: xtask starts such a guest again.
if dmesg | grep -q 'tsc: Using PIT calibration value'; then
    : >/mnt/share/clock-is-wrong
    power_off
fi

stty -F /dev/ttyS1 raw -echo
setsid bash /mnt/boot/jobs.sh >/dev/ttyS1 2>&1 </dev/null
# The serial line is drained before the machine goes.
stty -F /dev/ttyS1 drain sane
power_off
