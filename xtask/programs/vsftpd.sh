# A child for each session by SDP, which makes a connection for each file.
data large $((64 << 20))
mkdir -p files
cp large files/
mkdir -p /run/vsftpd/empty
cat >vsftpd.conf <<CONF
listen=YES
listen_address=127.0.0.1
listen_port=2121
background=NO
anonymous_enable=YES
anon_root=$PWD/files
no_anon_password=YES
run_as_launching_user=YES
write_enable=YES
anon_upload_enable=YES
seccomp_sandbox=NO
isolate=NO
isolate_network=NO
secure_chroot_dir=/run/vsftpd/empty
CONF
chmod 755 . files
chmod 644 files/large
# A child accepts the connection for a file without ever having waited for it, so that is TCP's.
may_be_tcp refused
for client in curl lftp; do
    step "$client"
    # One session for each server: the next one's process inherits the room that threads of the relay
    # take, which its limit for memory does not bear.
    start vsftpd vsftpd "$PWD/vsftpd.conf"
    server=$started
    listens 2121
    if [ $client = curl ]; then
        must by_sdp curl -sS -o got ftp://127.0.0.1:2121/large
    else
        must by_sdp lftp -e 'set net:timeout 20; set net:max-retries 1; get large -o got; bye' \
            ftp://127.0.0.1:2121 >lftp.log 2>&1
    fi
    same large got
    rm got
    moves 200
    moves_by_tcp $((64 << 20))
    stop $server TERM 143 0
done
