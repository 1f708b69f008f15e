# Another server of the kind, whose children do not become another program.
mkdir -m 700 keys .ssh
dropbearkey -t ed25519 -f keys/host >/dev/null
ssh-keygen -q -t ed25519 -N '' -f keys/mine
# The folder that root's are looked for in.
mount -t tmpfs -o mode=700 tmpfs /root && mkdir -m 700 /root/.ssh && cp keys/mine.pub /root/.ssh/authorized_keys
start dropbear dropbear -F -E -s -r keys/host -p 127.0.0.1:2223
server=$started
listens 2223
data sent $((32 << 20))
must by_sdp ssh -F none -p 2223 -i keys/mine -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
    -o LogLevel=ERROR root@127.0.0.1 cat <sent >got 2>ssh.log
same sent got
moves $((64 << 20))
stop $server TERM 1
