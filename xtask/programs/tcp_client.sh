# Servers by SDP, clients that know only TCP: everything goes by TCP.
. "$FOLDER/web.sh"
. "$FOLDER/nginx_conf.sh"
nginx_serves
start redis redis-server --port 6379 --bind 127.0.0.1 --save ''
redis=$started
listens 6379
must curl -sS --fail -o got/large http://127.0.0.1:8080/large
same www/large got/large
redis-cli -x set large <www/large >/dev/null
redis-cli --raw get large | head -c $((64 << 20)) >got/value
same www/large got/value
moves_by_tcp $((192 << 20))
step "one client by TCP, one by SDP"
start_plain slow curl -sS --fail --limit-rate 20M -o got/slow http://127.0.0.1:8080/large
slow=$started
must by_sdp curl -sS --fail -o got/fast http://127.0.0.1:8080/large
ends $slow 0
same www/large got/slow
same www/large got/fast
moves $((64 << 20))
stop $redis TERM 0
stop $nginx QUIT 0
