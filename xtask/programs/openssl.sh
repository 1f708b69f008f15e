# TLS.
openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 1 -subj /CN=localhost \
    2>openssl.log || fail "no certificate"
data large $((32 << 20))
start server openssl s_server -accept 127.0.0.1:4433 -cert cert.pem -key key.pem -WWW -quiet
server=$started
listens 4433
step "s_client"
printf 'GET /large HTTP/1.0\r\n\r\n' | must by_sdp openssl s_client -connect 127.0.0.1:4433 \
    -CAfile cert.pem -verify_return_error -quiet -ign_eof 2>client.log >answer
tail -c $((32 << 20)) answer >got
same large got
step "curl"
must by_sdp curl -sS --fail --cacert cert.pem --resolve localhost:4433:127.0.0.1 -o got \
    https://localhost:4433/large
same large got
moves $((64 << 20))
stop $server TERM 143
