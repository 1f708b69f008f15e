# TLS between two tunnels: a thread for each connection.
openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 1 -subj /CN=localhost \
    2>openssl.log || fail "no certificate"
for side in server client; do
    cat >$side.conf <<CONF
foreground = yes
pid =
[one]
CONF
done
printf 'accept = 127.0.0.1:7001\nconnect = 127.0.0.1:7002\ncert = cert.pem\nkey = key.pem\n' >>server.conf
printf 'client = yes\naccept = 127.0.0.1:7000\nconnect = 127.0.0.1:7001\nCAfile = cert.pem\nverifyPeer = yes\n' >>client.conf
data sent $((32 << 20))
start echo socat TCP-LISTEN:7002,bind=127.0.0.1,fork,reuseaddr EXEC:cat
echo=$started
listens 7002
start server stunnel4 server.conf
server=$started
listens 7001
start client stunnel4 client.conf
client=$started
listens 7000
for at in 1 2 3; do
    step "connection $at"
    must by_sdp socat -t 60 - TCP:127.0.0.1:7000 <sent >got
    same sent got
    # Three connections, there and back.
    moves $((192 << 20))
done
stop $client TERM 0
stop $server TERM 0
stop $echo TERM 143
