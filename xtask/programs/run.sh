# One case, as the first process of namespaces of its own: what it starts ends with it, its loopback
# carries nothing but its bytes, and what lies in /dev/shm at its end was left by it.
#
# FOLDER has the cases, CASE is one of them, OUT takes what it found, SDP is the program with the
# library beside it, MODE is sdp or tcp.
set -mu
mount -t tmpfs tmpfs /dev/shm && mount -t tmpfs -o mode=755 tmpfs /run && ip link set lo up || exit
# Where users other than root reach it.
mkdir -m 777 /run/case && install -m 755 "$SDP" "$(dirname "$SDP")/libsdp_preload.so" /run || exit
SDP=/run/sdp
cd /run/case || exit
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export TMPDIR=/run/case HOME=/run/case LC_ALL=C
export SDP_PRELOAD_REPORT=/run/case/report SDP_PRELOAD_WAIT=5000
# What a failure says, wherever the command that failed writes to.
exec 9>&1
: >report && chmod 666 report
. "$FOLDER/lib.sh"
trap 'at_end $?' EXIT
. "$FOLDER/$CASE.sh"
