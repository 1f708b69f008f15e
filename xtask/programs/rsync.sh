# A child for each connection; and clients that fork, of which one process writes and one reads.
mkdir here there
data here/large $((64 << 20))
for ((at = 0; at < 200; at++)); do
    echo "file $at" >"here/$at"
done
cat >rsyncd.conf <<CONF
use chroot = no
uid = root
gid = root
pid file = $PWD/rsyncd.pid
[here]
path = $PWD/here
[there]
path = $PWD/there
read only = no
CONF
start rsync rsync --daemon --no-detach --config=rsyncd.conf --address=127.0.0.1 --port=8730
server=$started
listens 8730
step "pushing"
must by_sdp rsync -a here/ rsync://127.0.0.1:8730/there/
must diff -r here there
moves $((64 << 20))
step "pulling"
must by_sdp rsync -a rsync://127.0.0.1:8730/here/ back/
must diff -r here back
moves $((64 << 20))
step "pulling what differs"
data back/large $((64 << 20))
# Of the same length and of the same second it would be taken for the same file.
touch -d "1 hour ago" back/large
must by_sdp rsync -a rsync://127.0.0.1:8730/here/ back/
must diff -r here back
stop $server TERM 0 20 143
