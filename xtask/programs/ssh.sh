# A child for each connection that becomes another program, gives up its rights, and encrypts.
mkdir -m 700 keys /run/sshd
ssh-keygen -q -t ed25519 -N '' -f keys/host
ssh-keygen -q -t ed25519 -N '' -f keys/mine
cat >sshd_config <<CONF
Port 2222
ListenAddress 127.0.0.1
HostKey $PWD/keys/host
AuthorizedKeysFile $PWD/keys/mine.pub
PidFile none
UsePAM no
StrictModes no
PermitRootLogin yes
Subsystem sftp internal-sftp
CONF
cat >ssh_config <<CONF
Host *
    Port 2222
    IdentityFile $PWD/keys/mine
    StrictHostKeyChecking no
    UserKnownHostsFile /dev/null
    LogLevel ERROR
CONF
start sshd "$(command -v sshd || echo /usr/sbin/sshd)" -D -e -f "$PWD/sshd_config"
server=$started
listens 2222
step "a command"
[ "$(by_sdp ssh -F ssh_config 127.0.0.1 echo hello)" = hello ] || fail "no hello by ssh"
data sent $((64 << 20))
step "a file by sftp and back by a pipe"
must by_sdp scp -q -F ssh_config -S "$(command -v ssh)" sent 127.0.0.1:"$PWD/there"
same sent there
must by_sdp ssh -F ssh_config 127.0.0.1 cat "$PWD/there" >got
same sent got
moves $((128 << 20))
stop $server TERM 0 255 143
