# A child for each session, which makes a connection for each file.
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
start vsftpd vsftpd "$PWD/vsftpd.conf"
server=$started
listens 2121
step "curl"
must by_sdp curl -sS -o got ftp://127.0.0.1:2121/large
same large got
step "lftp"
rm got
must by_sdp lftp -e 'set net:timeout 20; set net:max-retries 1; get large -o got; bye' ftp://127.0.0.1:2121 >lftp.log 2>&1
same large got
moves $((128 << 20))
stop $server TERM 143 0
