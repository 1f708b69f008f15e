#!/bin/busybox sh
# The first program of the guest, in the initial memory file system: reaches the host's root file
# system, read-only over 9p, lays a writable memory file system over it and goes on there.
b=/bin/busybox

give_up() {
    $b echo "guest: $*"
    $b poweroff -f
    $b sleep 60
}

$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t devtmpfs dev /dev
while read -r module; do
    $b insmod "/modules/$module" || give_up "cannot load $module"
done </modules/order
$b mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=512000 host /host ||
    give_up "cannot mount the host's files"
$b mount -t tmpfs -o size=90% tmpfs /over
$b mkdir /over/upper /over/work
$b mount -t overlay -o lowerdir=/host,upperdir=/over/upper,workdir=/over/work,xino=off \
    overlay /root || give_up "cannot lay memory over the host's files"
for folder in proc sys dev; do
    $b mount --move "/$folder" "/root/$folder"
done
$b mkdir -p /root/mnt/share
$b mount -t 9p -o trans=virtio,version=9p2000.L,rw,msize=512000 share /root/mnt/share ||
    give_up "cannot mount the shared folder"
exec $b switch_root /root /bin/sh /mnt/share/start.sh
